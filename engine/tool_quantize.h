/* tool_quantize.h - which type `quern quantize --type WORD` gives each tensor, for those who plan
 * without writing.  Pure functions, any thread. */
#ifndef QUERN_ENGINE_TOOL_QUANTIZE_H
#define QUERN_ENGINE_TOOL_QUANTIZE_H

#include "engine/models/models.h"

typedef struct quantize_target quantize_target;

/* NULL with e filled, naming the option, for a word --type does not know. */
const quantize_target *quantize_target_find(const char *word, const char *option, err *e);
const char *quantize_target_name(const quantize_target *to);
/* dtype of the tensor of rule r in layer `at` of `layers` (-1: a global), rows of cols elements. */
int quantize_type_of(const quantize_target *to, const rule *r, int64_t at, int64_t layers,
                     int64_t cols, bool tied);

#endif
