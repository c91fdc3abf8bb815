/* test_kvpool_collide.c - the pool's tests once more with a hash that is the same for everything:
 * then only the comparison of tokens, parent and salt keeps foreign KV out. */
#include <xxhash.h>
#define XXH3_128bits(p, n) (((void)(p), (void)(n), (XXH128_hash_t){0, 0}))
#include "engine/kvpool.c"
#include "tests/test_kvpool.c"
