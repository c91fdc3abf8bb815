/* cmd.h - the subcommands of `quern`: each returns the process's exit code (0 ok, 1 run-time
 * failure, 2 bad input or usage).  Called by main.c on the main thread. */
#ifndef QUERN_SERVER_CMD_H
#define QUERN_SERVER_CMD_H

#include "config/options.h"

int cmd_serve(const options *o);         /* cmd_serve.c */
int cmd_chat(const options *o);          /* cmd_chat.c */
int cmd_bench(const options *o);         /* main.c */
int cmd_inspect(const options *o);       /* main.c */
int cmd_quantize(const options *o);      /* main.c */
int cmd_tokenize(const options *o);      /* cmd_text.c */
int cmd_detokenize(const options *o);    /* cmd_text.c */
int cmd_render(const options *o);        /* cmd_render.c */
int cmd_parse_output(const options *o);  /* cmd_parse.c */
int cmd_grammar_check(const options *o); /* cmd_grammar.c */

#endif
