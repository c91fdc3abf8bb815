/* cmd_model.h - what every command that opens a model does first: find it, turn options into
 * engine_options. */
#ifndef QUERN_SERVER_CMD_MODEL_H
#define QUERN_SERVER_CMD_MODEL_H

#include "config/options.h"
#include "engine/engine.h"

typedef struct {
    engine_options o;
    char path[4096];
    bool is_demo;
    buf template_text;
    json_doc *kwargs_doc;
} model_setup;

/* Fills m from the options; the demo model is looked up beside the executable, then in
 * PREFIX/share/quern/demo.  e says what to change. */
int model_setup_init(model_setup *m, const options *o, err *e);
void model_setup_clear(model_setup *m);
/* 2 for bad input or usage, 1 for run-time failures (exit codes of all commands). */
int exit_code(const err *e);
/* Prints "quern: message" and returns exit_code. */
int cmd_fail(const err *e);

#endif
