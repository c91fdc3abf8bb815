/* tls.h - the certificate and key that connections show (API H1), and last words on a connection.
 * The HTTP library asks for the pair at every handshake, so a renewed one is taken up while
 * connections go on.
 * Refuses: what is not PEM, a key with a password, a key that is not the first certificate's.
 * Thread: tls_load and tls_free main; handshakes any; a line see below. */
#ifndef QUERN_SERVER_TLS_H
#define QUERN_SERVER_TLS_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Reads both PEM files; from then on handshakes use them.  After an error all is as before. */
int tls_load(const char *cert, const char *key, err *e);
void tls_free(void);
/* Unix seconds until when the certificate in use is valid. */
int64_t tls_expiry(void);
/* The function for MHD_OPTION_HTTPS_CERT_CALLBACK2, which no other file can name the type of. */
void *tls_retriever(void);

/* One connection.  Whoever wants to end it is not the thread that reads it, and only that one may
 * use its session: it is left the words, and sends them when it looks for bytes again. */
typedef struct {
    void *session; /* gnutls_session_t */
    int fd;
    _Atomic(const char *) words; /* NULL: none */
    bool said;                   /* of the thread that reads */
} tls_line;
/* Before the handshake; the line stays where it is while the session lives. */
void tls_line_init(tls_line *l, void *session, int fd);
/* Any thread: words that live as long as the line, then the end of the connection in place of what
 * the client sends. */
void tls_line_end(tls_line *l, const char *words);

#endif
