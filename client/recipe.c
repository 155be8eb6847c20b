/* recipe.c - see recipe.h. */
#include <client/recipe.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/crash.h>

/* ---- the key ---- */

static int key_path(const char *id, char *ret_path, size_t size)
{
    char folder[LIMIT_PATH_BYTES - 64];
    int r = farm_state_folder("jobs", folder, sizeof(folder));

    if (r == 0)
        snprintf(ret_path, size, "%s/%s", folder, id);
    return r;
}

void recipe_keep_key(struct westlight *westlight, const char *id, const uint8_t job_key[32])
{
    char path[LIMIT_PATH_BYTES], hex[65], text[256];

    if (key_path(id, path, sizeof(path)) < 0)
        return;
    _cleanup_(closep) int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    crash_point("jobkey.created");
    int n = snprintf(text, sizeof(text), "westlight job 1\nfarm %s\nkey %s\n", westlight->farm.name,
                     hex_encode(job_key, 32, hex));
    if (n > 0 && fd_write_all(file, text, (size_t)n) < 0)
        unlink(path);
    crash_point("jobkey.written");
    wipe(hex, sizeof(hex));
    wipe(text, sizeof(text));
}

static int kept_key(const char *id, uint8_t ret_key[32])
{
    char path[LIMIT_PATH_BYTES];
    _cleanup_(bytes_wipe_deinit) struct bytes text = {0};

    int r = key_path(id, path, sizeof(path));
    if (r == 0)
        r = file_read(path, 4096, &text);
    if (r == 0)
        r = bytes_append(&text, "", 1);
    if (r < 0)
        return r;
    char *key = strstr((char *)text.data, "\nkey ");
    if (!key || strlen(key) < 5 + 64)
        return -ENOENT;
    key[5 + 64] = '\0';
    return hex_decode(key + 5, ret_key, 32);
}

int recipe_key(struct westlight *westlight, const Wl__Show *show, const char *id,
               uint8_t ret_key[32])
{
    if (show->job_key.len == 32) {
        memcpy(ret_key, show->job_key.data, 32);
        return 0;
    }
    if (kept_key(id, ret_key) == 0)
        return 0;
    return connection_fail(westlight, WESTLIGHT_E_REFUSED,
                           "job %s: only studio %s may open it: use a key of that studio", id,
                           show->row->studio);
}

/* ---- the recipe ---- */

int recipe_open(struct blocks *blocks, const char *id, const uint8_t job_key[32],
                const Wl__BlockRef *ref, Wl__Recipe **ret_recipe)
{
    _cleanup_(bytes_wipe_deinit) struct bytes packed = {0};
    const char *why = "";
    uint8_t secret[32];

    job_key_in(job_key, secret);
    int r = blocks_open_ref(blocks, secret, ref, &packed);
    wipe(secret, sizeof(secret));
    if (r != 0)
        return r;
    r = wire_recipe_unpack(packed.data, packed.size, ret_recipe, &why);
    if (r > 0)
        return connection_fail(blocks->westlight, WESTLIGHT_E_CORRUPT,
                               "job %s: its recipe cannot be read: %s", id, why);
    return r;
}

int recipe_seal(struct westlight *westlight, const uint8_t job_key[32], const Wl__Recipe *recipe,
                struct recipe_sealed *ret_sealed)
{
    _cleanup_(bytes_wipe_deinit) struct bytes packed = {0};
    size_t size = wl__recipe__get_packed_size(recipe);
    uint8_t secret[32];

    if (size > LIMIT_BLOCK_BYTES)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "job %.100s: its recipe is %zu bytes: at most %d are taken: "
                               "put long texts into input files",
                               recipe->job_name, size, LIMIT_BLOCK_BYTES);
    int r = bytes_reserve(&packed, size + 1);
    if (r < 0)
        return r;
    packed.size = wl__recipe__pack(recipe, packed.data);
    job_key_in(job_key, secret);
    ret_sealed->sealed.size = 0;
    r = seal_block(westlight->sealer, secret, packed.data, packed.size, &ret_sealed->sealed,
                   &ret_sealed->key);
    if (r == 0)
        wire_block_ref_set(westlight->sealer, secret, &ret_sealed->key, ret_sealed->wrapped,
                           &ret_sealed->ref);
    wipe(secret, sizeof(secret));
    if (r == 0 && ret_sealed->sealed.size <= LIMIT_RECIPE_INLINE_BYTES)
        ret_sealed->ref.inline_sealed =
            (ProtobufCBinaryData){ret_sealed->sealed.size, ret_sealed->sealed.data};
    return r;
}

void recipe_sealed_deinit(struct recipe_sealed *sealed)
{
    bytes_deinit(&sealed->sealed);
}

struct put {
    const struct bytes *data;
    const struct block_id *id;
};

static int put_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    const struct put *put = user;

    (void)i;
    out->size = 0;
    *ret_id = *put->id;
    return bytes_append(out, put->data->data, put->data->size);
}

int recipe_put(struct blocks *blocks, struct recipe_sealed *sealed, struct block_id *ret_refs,
               bool *ret_has_refs)
{
    struct bytes refs[LIMIT_REFS_BLOCKS] = {0};
    struct block_id names[LIMIT_REFS_BLOCKS];
    size_t n = 0;

    *ret_has_refs = false;
    if (sealed->ref.inline_sealed.len > 0)
        return 0;
    blocks->write_bytes = 2 * LIMIT_SEALED_BYTES;
    int r =
        blocks_put(blocks, 1, false, put_source, &(struct put){&sealed->sealed, &sealed->key.id});
    if (r == 0)
        r = refs_pack(&sealed->key.id, 1, refs, names, &n);
    if (r == 0) /* a refs block is put last: whatever it names is in the vault */
        r = blocks_put(blocks, 1, true, put_source, &(struct put){&refs[0], &names[0]});
    for (size_t i = 0; i < n; i++)
        bytes_deinit(&refs[i]);
    if (r != 0)
        return r;
    *ret_refs = names[0];
    *ret_has_refs = true;
    return 0;
}

void recipe_request(const struct recipe_sealed *sealed, const uint8_t job_key[32],
                    uint8_t ret_request[16])
{
    uint8_t request[32];

    mac2(job_key, "request1", strlen("request1"), sealed->key.id.bytes,
         sizeof(sealed->key.id.bytes), request);
    memcpy(ret_request, request, 16);
}
