/* api.h - the handlers of routes.c, one file per family. */
#ifndef QUERN_SERVER_API_H
#define QUERN_SERVER_API_H

#include "server/routes.h"

route_fn api_chat, api_chat_count;             /* api_chat.c */
route_fn api_ollama_chat, api_ollama_generate; /* api_ollama.c */
route_fn api_ollama_version, api_ollama_tags, api_ollama_ps, api_ollama_show, api_ollama_pull,
    api_ollama_fixed;                                             /* api_ollama_models.c */
route_fn api_embeddings, api_ollama_embed, api_ollama_embeddings; /* api_embeddings.c */
route_fn api_rerank, api_score;                                   /* api_rerank.c */
route_fn api_messages, api_messages_count;                        /* api_messages.c */
route_fn api_responses, api_responses_count;                      /* api_responses.c */
route_fn api_response, api_response_delete, api_response_cancel;  /* api_responses_stored.c */
route_fn api_lmstudio_chat, api_lmstudio_v0_embeddings;           /* api_lmstudio.c */
route_fn api_lmstudio_models, api_lmstudio_v0_models,
    api_lmstudio_v0_model;                                            /* api_lmstudio_models.c */
route_fn api_llama_completion, api_llama_infill;                      /* api_llama.c */
route_fn api_props, api_slots;                                        /* api_props.c */
route_fn api_completions;                                             /* api_completions.c */
route_fn api_models, api_model;                                       /* api_models.c */
route_fn api_tokenize, api_detokenize, api_apply_template;            /* api_text.c */
route_fn api_health, api_ready, api_version, api_root, api_not_built; /* api_status.c */
route_fn api_openapi;                                                 /* openapi.c */
route_fn api_metrics;                                                 /* metrics_page.c */

#endif
