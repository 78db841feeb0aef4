/* Descriptors, none of which has the number of stdin, stdout or stderr, should those be closed: others write there. */
#ifndef DTLS_BASE_DESCRIPTOR_H
#define DTLS_BASE_DESCRIPTOR_H

/* Another one of the same file, not handed on by exec; -1 and errno on failure. */
int dtls_descriptor_duplicate(int fd);
/* Takes one that was just made, or -1. Another one of the same file if it has such a number; -1 and errno on failure. */
int dtls_descriptor_lift(int fd);

#endif
