/* tls.h - the certificate and key that connections show (API H1).  The HTTP library asks for them
 * at every handshake, so a renewed pair is taken up while connections go on.
 * Refuses: what is not PEM, a key with a password, a key that is not the first certificate's.
 * Thread: tls_load and tls_free main; handshakes any. */
#ifndef QUERN_SERVER_TLS_H
#define QUERN_SERVER_TLS_H

#include "base/err.h"

#include <stdint.h>

/* Reads both PEM files; from then on handshakes use them.  After an error all is as before. */
int tls_load(const char *cert, const char *key, err *e);
void tls_free(void);
/* Unix seconds until when the certificate in use is valid. */
int64_t tls_expiry(void);
/* The function for MHD_OPTION_HTTPS_CERT_CALLBACK2, which no other file can name the type of. */
void *tls_retriever(void);

#endif
