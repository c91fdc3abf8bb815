/* openapi.h - the tables from which GET /openapi.json is written (API H23): fields of request
 * bodies and shapes of replies, as JSON Schema text.  The routes come from routes.c;
 * tests/e2e/test_openapi.py holds the field tables against the lists of params.c and drives the
 * server by the document. Thread: const data. */
#ifndef QUERN_SERVER_OPENAPI_H
#define QUERN_SERVER_OPENAPI_H

/* A field and what it takes. */
typedef struct {
    const char *name, *schema; /* JSON Schema text; a NULL name ends a table */
} openapi_field;

/* A request body: its own fields, then those of the tables behind. */
typedef struct {
    const char *name;             /* of the component */
    const char *required;         /* JSON array text, or NULL */
    const openapi_field *part[4]; /* NULL-terminated */
} openapi_body;

/* A component that is written as it stands. */
typedef struct {
    const char *name, *schema;
} openapi_shape;

extern const openapi_body openapi_bodies[]; /* a NULL name ends each */
extern const openapi_shape openapi_shapes[];

#endif
