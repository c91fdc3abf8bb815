/* generation_config.h - sampling defaults of generation_config.json and of
 * --override-generation-config.  Internal to config/. */
#ifndef QUERN_CONFIG_GENERATION_CONFIG_H
#define QUERN_CONFIG_GENERATION_CONFIG_H

#include "config/fields.h"
#include "config/model_config.h"

/* Fields present in f->o replace those of g; end tokens are added, replaced if `replace_eos`. */
void generation_config_read(fields *f, generation_config *g, bool replace_eos);
/* Its end, padding and begin tokens alone. */
void generation_config_read_ids(fields *f, generation_config *g, bool replace_eos);
/* Adds an end token; false if there is no room. */
bool generation_config_add_eos(generation_config *g, int64_t id);

#endif
