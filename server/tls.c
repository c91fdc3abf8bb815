/* tls.c - see tls.h; the only file that includes GnuTLS.  Owns the pair in use, under its own lock:
 * a handshake gets copies, which the library frees, so a pair can be replaced at any moment.  Of a
 * connection it owns nothing. */
#include "server/tls.h"

#include "base/file.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_FILE = 1 << 20 };

typedef struct {
    gnutls_x509_crt_t *cert; /* [n], the server's own first */
    unsigned n;
    gnutls_x509_privkey_t key;
} pair;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pair in_use;

static void pair_clear(pair *p)
{
    for (unsigned i = 0; i < p->n; i++) gnutls_x509_crt_deinit(p->cert[i]);
    gnutls_free(p->cert);
    if (p->key) gnutls_x509_privkey_deinit(p->key);
    *p = (pair){0};
}

/* What a handshake gets, sorted from the server's own certificate to its root's. */
static int pair_copy(const pair *p, gnutls_pcert_st **cert, unsigned *n, gnutls_privkey_t *key)
{
    *cert = NULL;
    *key = NULL;
    *n = p->n;
    gnutls_pcert_st *list = gnutls_calloc(p->n, sizeof *list);
    if (!list) return GNUTLS_E_MEMORY_ERROR;
    int rc = gnutls_pcert_import_x509_list(list, p->cert, n, GNUTLS_X509_CRT_LIST_SORT);
    if (rc < 0) {
        gnutls_free(list);
        return rc;
    }
    rc = gnutls_privkey_init(key);
    if (!rc) rc = gnutls_privkey_import_x509(*key, p->key, GNUTLS_PRIVKEY_IMPORT_COPY);
    if (!rc) {
        *cert = list;
        return 0;
    }
    if (*key) gnutls_privkey_deinit(*key);
    *key = NULL;
    for (unsigned i = 0; i < *n; i++) gnutls_pcert_deinit(&list[i]);
    gnutls_free(list);
    return rc;
}

static bool pair_fits(const pair *p)
{
    unsigned char a[64], b[64];
    size_t n = sizeof a, m = sizeof b;
    return !gnutls_x509_crt_get_key_id(p->cert[0], 0, a, &n) &&
           !gnutls_x509_privkey_get_key_id(p->key, 0, b, &m) && n == m && !memcmp(a, b, n);
}

/* A handshake with it could begin. */
static int pair_check(const pair *p)
{
    gnutls_pcert_st *cert;
    gnutls_privkey_t key;
    unsigned n;
    int rc = pair_copy(p, &cert, &n, &key);
    if (rc) return rc;
    for (unsigned i = 0; i < n; i++) gnutls_pcert_deinit(&cert[i]);
    gnutls_free(cert);
    gnutls_privkey_deinit(key);
    return 0;
}

static int pair_read(pair *p, const char *cert, const char *key, err *e)
{
    buf text = {0};
    if (file_read(cert, MAX_FILE, &text, e)) {
        buf_clear(&text);
        return err_prefix(e, "--tls-cert");
    }
    gnutls_datum_t d = {(unsigned char *)text.v, (unsigned)text.len};
    int rc = gnutls_x509_crt_list_import2(&p->cert, &p->n, &d, GNUTLS_X509_FMT_PEM, 0);
    buf_clear(&text);
    if (rc < 0) *p = (pair){0};
    if (!p->n)
        return err_set(e, ERR_INVALID, "--tls-cert '%.120s' holds no certificates as PEM: %s", cert,
                       gnutls_strerror(rc));
    if (file_read(key, MAX_FILE, &text, e)) {
        buf_clear(&text);
        return err_prefix(e, "--tls-key");
    }
    d = (gnutls_datum_t){(unsigned char *)text.v, (unsigned)text.len};
    rc = gnutls_x509_privkey_init(&p->key);
    if (!rc) rc = gnutls_x509_privkey_import2(p->key, &d, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (text.len) explicit_bzero(text.v, text.len);
    buf_clear(&text);
    if (rc)
        return err_set(e, ERR_INVALID,
                       "--tls-key '%.120s' holds no private key as PEM without a password: %s", key,
                       gnutls_strerror(rc));
    if (!pair_fits(p))
        return err_set(e, ERR_INVALID,
                       "--tls-key '%.80s' and the first certificate of --tls-cert '%.80s' do not "
                       "match",
                       key, cert);
    rc = pair_check(p);
    return rc ? err_set(e, ERR_INVALID, "--tls-cert '%.120s' cannot be used: %s", cert,
                        gnutls_strerror(rc))
              : 0;
}

int tls_load(const char *cert, const char *key, err *e)
{
    pair fresh = {0};
    int rc = pair_read(&fresh, cert, key, e);
    if (!rc) {
        pthread_mutex_lock(&mu);
        pair old = in_use;
        in_use = fresh;
        fresh = old;
        pthread_mutex_unlock(&mu);
    }
    pair_clear(&fresh);
    return rc;
}

void tls_free(void)
{
    pthread_mutex_lock(&mu);
    pair_clear(&in_use);
    pthread_mutex_unlock(&mu);
}

int64_t tls_expiry(void)
{
    pthread_mutex_lock(&mu);
    int64_t t = in_use.n ? gnutls_x509_crt_get_expiration_time(in_use.cert[0]) : 0;
    pthread_mutex_unlock(&mu);
    return t;
}

static int retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                    gnutls_pcert_st **cert, unsigned *n_cert, gnutls_ocsp_data_st **ocsp,
                    unsigned *n_ocsp, gnutls_privkey_t *key, unsigned *flags)
{
    (void)session, (void)info;
    *ocsp = NULL;
    *n_ocsp = 0;
    *flags = GNUTLS_CERT_RETR_DEINIT_ALL;
    pthread_mutex_lock(&mu);
    int rc = pair_copy(&in_use, cert, n_cert, key);
    pthread_mutex_unlock(&mu);
    return rc ? -1 : 0;
}

void *tls_retriever(void)
{
    gnutls_certificate_retrieve_function3 *f = retrieve;
    return (void *)(uintptr_t)f;
}

/* ---- last words ------------------------------------------------------------------------------ */

/* In place of GnuTLS's own recv().  It lets one thread send while another receives, and while this
 * waits for bytes nothing of the receiving is under way: so here is where to send. */
static ssize_t pull(gnutls_transport_ptr_t at, void *data, size_t n)
{
    tls_line *l = at;
    const char *words = atomic_load(&l->words);
    if (!words) return recv(l->fd, data, n, 0);
    if (!l->said) {
        l->said = true;
        ssize_t sent = gnutls_record_send(l->session, words, strlen(words));
        if (sent == (ssize_t)strlen(words)) gnutls_bye(l->session, GNUTLS_SHUT_WR);
    }
    return 0;
}

static int pull_timeout(gnutls_transport_ptr_t at, unsigned ms)
{
    const tls_line *l = at;
    return gnutls_system_recv_timeout((gnutls_transport_ptr_t)(intptr_t)l->fd, ms);
}

void tls_line_init(tls_line *l, void *session, int fd)
{
    gnutls_transport_ptr_t from, to;
    l->session = session;
    l->fd = fd;
    atomic_init(&l->words, NULL);
    l->said = false;
    gnutls_transport_get_ptr2(session, &from, &to);
    gnutls_transport_set_ptr2(session, l, to);
    gnutls_transport_set_pull_function(session, pull);
    gnutls_transport_set_pull_timeout_function(session, pull_timeout);
}

void tls_line_end(tls_line *l, const char *words)
{
    atomic_store(&l->words, words);
    shutdown(l->fd, SHUT_RD); /* wakes the thread that reads */
}
