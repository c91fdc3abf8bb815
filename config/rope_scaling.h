/* rope_scaling.h - the rope_scaling object of config.json (and its newer spelling rope_parameters),
 * of --rope-scaling, and the same facts in GGUF metadata.  Internal to config/. */
#ifndef QUERN_CONFIG_ROPE_SCALING_H
#define QUERN_CONFIG_ROPE_SCALING_H

#include "config/fields.h"
#include "config/model_config.h"

/* Reads f->o into c->rope and stretches c->ctx; c->rope.theta and c->ctx hold the model's own. */
void rope_scaling_read(fields *f, model_config *c);
/* From {arch}.rope.*; ctx is what the metadata says and stays at least that. */
int rope_scaling_from_gguf(model_config *c, const struct gguf *g, const char *arch, err *e);

#endif
