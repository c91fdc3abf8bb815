/* options_table.h - the rows of all options; options.c parses and prints by them.  Internal to
 * config/. */
#ifndef QUERN_CONFIG_OPTIONS_TABLE_H
#define QUERN_CONFIG_OPTIONS_TABLE_H

#include "config/options.h"

typedef enum {
    OPT_BOOL,   /* bool; --x, --x=true, --no-x */
    OPT_INT,    /* int64_t in lo..hi; the word "auto" is 0 where that is the default */
    OPT_NUM,    /* double in lo..hi */
    OPT_BYTES,  /* uint64_t; "auto" as above */
    OPT_STR,    /* char * */
    OPT_CHOICE, /* char *, one of accept ("a|b|c") whatever the case */
    OPT_JSON,   /* char *, text of a JSON object */
    OPT_LIST,   /* str_list, comma-separated, repeatable */
    OPT_REPEAT  /* str_list, one value a use */
} option_kind;

typedef struct {
    const char *name;     /* "max-model-len" */
    const char *alias[4]; /* as typed: "-c", "--ctx-size" */
    option_kind kind;
    size_t offset;      /* of the field in options */
    const char *def;    /* as a user would type it; NULL = unset */
    const char *accept; /* CHOICE: the words */
    double lo, hi;      /* INT, NUM */
    unsigned commands;  /* CMD_* that read it */
    const char *group;  /* heading in --help */
    const char *arg;    /* "N", "FILE": what the value is called */
    const char *help;
} option_row;

/* Row 0 is the model, which a positional argument may also name. */
extern const option_row option_rows[];
extern const int option_n_rows;

/* Options of later stages: refused with a message that says what they belong to. */
typedef struct {
    const char *name, *feature;
} option_later;
extern const option_later option_laters[];
extern const int option_n_laters;

#endif
