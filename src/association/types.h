/* The objects of this floor, for headers that need their names alone. */
#ifndef DTLS_ASSOCIATION_TYPES_H
#define DTLS_ASSOCIATION_TYPES_H

typedef struct dtls_association dtls_association;
typedef struct dtls_endpoint dtls_endpoint;
typedef struct dtls_path dtls_path;
typedef struct dtls_deferral dtls_deferral;

#endif
