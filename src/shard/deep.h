/*
 * Requests that go inside of a partition: "28.email", or "28" where it has a tree. They append to the
 * log as all others do; what becomes of the state is decided in tree.c.
 *
 * The functions of store.h say STORE_DEEP where a request is one of these. Those below take the same
 * requests and give the same answers, or STORE_REFUSED with the reason in `store->refusal`.
 */
#pragma once

#include "shard/store.h"
#include "shard/tree.h"

/* Whether the key names something inside of a partition. */
bool deep_is_key(const uint8_t *key, size_t bytes);
/* Whether the partition of this hash and name has a tree. */
bool deep_is_tree(struct store *store, uint64_t hash, const uint8_t *key, size_t bytes);

/*
 * The table's entry of a partition, of this hash and name; NULL: there is none. `root` is that of its
 * tree, 0 where the entry is a record's.
 */
uint64_t *deep_entry(struct store *store, uint64_t hash, struct bytes partition, uint32_t *root);
/* Makes sure that trees can be changed at all. */
MUST_CHECK bool deep_ready(struct store *store);
/* Reads the key of a change; good until the next call. */
void deep_path(const struct store *store, const struct change *change, struct path *path);

enum store_result deep_update(struct store *store, const struct store_request *request,
                              const struct change **changed);
enum store_result deep_remove(struct store *store, const struct store_request *request,
                              const struct change **changed);
/* Appends to the array that the key leads to; makes one where there is nothing. */
enum store_result deep_push(struct store *store, const struct store_request *request,
                            const struct change **changed);
/* Adds a field to the object that the key leads to, under the next whole number. */
enum store_result deep_add(struct store *store, const struct store_request *request,
                           const struct change **changed);
/*
 * Sets the fields of the request's JSON object, all or none; each is a change of its own. `changed`
 * is the last one, NULL where there are no fields.
 */
enum store_result deep_patch(struct store *store, const struct store_request *request,
                             const struct change **changed);

/* Sets a partition that is not there yet. */
enum store_result deep_insert(struct store *store, const struct store_request *request,
                              const struct change **changed);

/* What a get found. */
struct deep_value {
    enum value_type type;
    uint64_t offset;
    size_t bytes;
    struct bytes data; /* where it lies in the log; else: */
    uint32_t twig;     /* is to be written as JSON; 0: */
    struct jsontext_value text;
};
/* Good until the next change. */
enum store_result deep_get(struct store *store, const struct store_request *request,
                           struct deep_value *value);
/* Writes the value's bytes. */
void deep_value_copy(struct store *store, const struct deep_value *value, uint8_t *to);

/* The last part of a change's key as a whole number: what a push or an add gave. */
uint64_t deep_id_of(const struct change *change);

/* Compaction has moved a live record of a partition that has a tree. */
void deep_moved(struct store *store, const struct change *change, uint64_t from, uint64_t to);
