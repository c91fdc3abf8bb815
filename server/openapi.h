/* openapi.h - the tables from which GET /openapi.json is written (API H23): fields of request
 * bodies and shapes of replies, as JSON Schema text.  The routes come from routes.c;
 * tests/e2e/test_openapi_fields.py asks the server whether it reads what is described and lists
 * the rest, test_openapi.py drives it by the document.  Thread: const data. */
#ifndef QUERN_SERVER_OPENAPI_H
#define QUERN_SERVER_OPENAPI_H

/* A field and what it takes. */
typedef struct {
    const char *name;   /* NULL ends a table */
    const char *schema; /* JSON Schema text; NULL: not read, whatever later tables say */
} openapi_field;

/* A request body.  Of several tables that have a name the first counts: the dialect's own (V9). */
typedef struct {
    const char *name;              /* of the component */
    const char *required;          /* JSON array text, or NULL */
    const openapi_field *part[12]; /* ends with NULL */
} openapi_body;

/* A component that is written as it stands. */
typedef struct {
    const char *name, *schema;
} openapi_shape;

extern const openapi_body openapi_bodies[]; /* a NULL name ends each */
extern const openapi_shape openapi_shapes[];

#endif
