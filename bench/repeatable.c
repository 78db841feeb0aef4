/*
 * For bench/instructions.lua, by LD_PRELOAD: what makes a process take more or fewer instructions in one run than in another.
 * LuaJIT's hash has a random seed, and malloc searches the holes that everything before has left in its heap. Here the seed
 * is always the same, and an allocation takes the first free block of its power of two, which costs the same each time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* One thread alone allocates here: no locks. What is free is a list, a list for each power of two. */
typedef union block {
  struct {
    union block *next;
    unsigned power;
  } head;
  _Alignas(16) unsigned char room[16];
} block;

enum { POWERS = 28, LEAST = 5 };
static block *free_blocks[POWERS];
static _Alignas(16) unsigned char arena[1 << 28];
static size_t used;

static block *carve(unsigned power) {
  size_t size = (size_t)1 << power;
  if (size > sizeof arena - used) return NULL;
  block *b = (block *)(arena + used);
  used += size;
  b->head.power = power;
  return b;
}

void *malloc(size_t size) {
  if (size >= (size_t)1 << (POWERS - 1)) return NULL;
  unsigned power = 64 - (unsigned)__builtin_clzll(size + sizeof(block) - 1);
  if (power < LEAST) power = LEAST;
  block *b = free_blocks[power];
  if (b)
    free_blocks[power] = b->head.next;
  else if (!(b = carve(power)))
    return NULL;
  return b + 1;
}

void free(void *pointer) {
  if (!pointer) return;
  block *b = (block *)pointer - 1;
  b->head.next = free_blocks[b->head.power];
  free_blocks[b->head.power] = b;
}

void *calloc(size_t count, size_t size) {
  if (count == 0 || size == 0) count = size = 1;
  if (count > SIZE_MAX / size) return NULL;
  size_t all = count * size;
  void *pointer = malloc(all);
  return pointer ? memset(pointer, 0, all) : NULL;
}

void *realloc(void *old, size_t size) {
  size_t room = old ? ((size_t)1 << ((block *)old - 1)->head.power) - sizeof(block) : 0;
  if (old && size <= room) return old;
  void *pointer = malloc(size);
  if (pointer && old) {
    memcpy(pointer, old, room);
    free(old);
  }
  return pointer;
}

/* Above 16 bytes some of the block is left out, and the block never comes back: what asks for it keeps it. */
int posix_memalign(void **out, size_t alignment, size_t size) {
  uintptr_t pointer = (uintptr_t)malloc(size + alignment + sizeof(block));
  if (!pointer) return ENOMEM;
  pointer = (pointer + sizeof(block) + alignment - 1) & ~(uintptr_t)(alignment - 1);
  ((block *)pointer - 1)->head.power = LEAST;
  *out = (void *)pointer;
  return 0;
}

void *aligned_alloc(size_t alignment, size_t size) {
  void *pointer;
  return posix_memalign(&pointer, alignment, size) == 0 ? pointer : NULL;
}

long syscall(long number, ...) {
  long argument[6], (*genuine)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) argument[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_getrandom) {
    memset((void *)argument[0], 7, (size_t)argument[1]);
    return argument[1];
  }
  return genuine(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}
