/* routes.h - the route table: method + path pattern -> handler.  A pattern may end in "*" (one
 * tail, slashes included).  Several methods may share a pattern. Thread: const. */
#ifndef QUERN_SERVER_ROUTES_H
#define QUERN_SERVER_ROUTES_H

#include "server/http.h"

typedef void route_fn(http_call *c);

enum {
    ROUTE_BODY = 1,     /* needs a body: 411 without one */
    ROUTE_PREP = 2,     /* handler runs on a prep thread */
    ROUTE_OPEN = 4,     /* no key */
    ROUTE_ANY_HOST = 8, /* exempt from the Host check */
    ROUTE_METRICS = 16, /* no key with --open-metrics */
    ROUTE_ANY_TYPE = 32 /* any Content-Type is read as JSON */
};

typedef enum { DIALECT_OPENAI, DIALECT_ANTHROPIC, DIALECT_OLLAMA, DIALECT_LMSTUDIO } dialect;

typedef struct {
    const char *method;  /* "GET" also serves HEAD */
    const char *pattern; /* canonical, used as the metrics label */
    route_fn *fn;
    unsigned flags;
} route;

/* The route of method and path; *tail points into path behind the pattern's slash.  If only other
 * methods match, NULL and allow is filled ("GET, HEAD"); if nothing matches allow is "". */
const route *route_find(const char *method, const char *path, const char **tail, char allow[64]);
/* Which error shape a path gets (E1).  anthropic: the call names an Anthropic version, which counts
 * where the path is several dialects'. */
dialect route_dialect(const char *path, bool anthropic);
int route_count(void);
const route *route_at(int i);

#endif
