/* What the compiler compiles for, by the names of LuaJIT (jit.os, jit.arch), as lit's packages call their folders: Linux-x64. */

#if defined __linux__
Linux-
#elif defined __APPLE__
OSX-
#elif defined __FreeBSD__ || defined __NetBSD__ || defined __OpenBSD__ || defined __DragonFly__
BSD-
#else
#error "luvit/platform.h: LuaJIT's name of this system is missing"
#endif

#if defined __x86_64__
x64
#elif defined __i386__
x86
#elif defined __aarch64__
arm64
#elif defined __arm__
arm
#else
#error "luvit/platform.h: LuaJIT's name of this processor is missing"
#endif
