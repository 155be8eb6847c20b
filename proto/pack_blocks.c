/* pack_blocks.c - blocks that are being sealed, by some threads and in order, and what is known of
 * earlier ones.
 */
#include <proto/pack.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/clock.h>
#include <proto/wire.h>

/* Times are coarse, and may be those of another host: what changed so lately may change again and
 * look the same. */
#define SETTLED_NS (2 * NS_PER_S)

int pack_block_new(struct pack *pack, struct pack_block **ret_block)
{
    struct pack_block *block = calloc(1, sizeof(*block));
    if (!block)
        return -ENOMEM;

    list_push(&pack->blocks, &block->node);
    *ret_block = block;
    return 0;
}

/* ---- blocks ---- */

static void job_run(void *item)
{
    struct pack_job *job = item;

    job->result = seal_block(job->sealer, job->secret, job->data.data, job->data.size, &job->sealed,
                             &job->block->key);
}

/* The key is there; `sealed` NULL: the bytes are not, since they were seen before. */
int pack_block_emit(struct pack *pack, struct pack_block *block, const void *sealed, size_t size)
{
    wire_block_key_set(&block->message, &block->key);
    int r = block_set_add(&pack->emitted, &block->key.id);

    return r <= 0 ? r : pack->emit(pack->user, &block->key, sealed, size);
}

static int job_end(struct pack *pack, const struct pack_job *job)
{
    return job->result ? job->result
                       : pack_block_emit(pack, job->block, job->sealed.data, job->sealed.size);
}

/* One comes back, or all. */
int pack_jobs_end(struct pack *pack, bool all)
{
    const struct pack_job *job;
    int r = 0;

    while (r == 0 && (job = crew_take(&pack->crew, true))) {
        r = job_end(pack, job);
        if (!all)
            break;
    }
    return r;
}

int pack_jobs_new(struct pack *pack)
{
    unsigned threads = pack->options ? pack->options->threads : 0;

    if (threads > CREW_THREADS)
        threads = CREW_THREADS;
    pack->crew.run = job_run;
    pack->crew.n_max = threads;
    pack->jobs = calloc(2 * threads + 1, sizeof(*pack->jobs));
    if (!pack->jobs)
        return -ENOMEM;
    for (; threads && pack->n_jobs < 2 * threads; pack->n_jobs++) {
        struct pack_job *job = &pack->jobs[pack->n_jobs];
        int r = sealer_new(&job->sealer);

        if (r)
            return r;
        job->secret = pack->secret;
    }
    return 0;
}

int pack_block_close(struct pack *pack, struct pack_block *block, const uint8_t *data, size_t size)
{
    int r = 0;

    if (pack->n_jobs == 0) {
        r = seal_block(pack->sealer, pack->secret, data, size, &pack->sealed, &block->key);
        return r ? r : pack_block_emit(pack, block, pack->sealed.data, pack->sealed.size);
    }
    if (crew_size(&pack->crew) == pack->n_jobs)
        r = pack_jobs_end(pack, false);
    struct pack_job *job = &pack->jobs[pack->next_job++ % pack->n_jobs];
    job->data.size = 0;
    if (r == 0)
        r = bytes_append(&job->data, data, size);
    if (r)
        return r;
    job->block = block;
    crew_add(&pack->crew, job);
    return 0;
}

/* ---- what was there the last time ---- */

void pack_print_add(uint8_t print[32], const char *path, const struct stat *st)
{
    const uint64_t looks[] = {st->st_dev,
                              st->st_ino,
                              (uint64_t)st->st_size,
                              (uint64_t)st->st_mtim.tv_sec,
                              (uint64_t)st->st_mtim.tv_nsec,
                              (uint64_t)st->st_ctim.tv_sec,
                              (uint64_t)st->st_ctim.tv_nsec};

    mac2(print, path, strlen(path) + 1, looks, sizeof(looks), print);
}

bool pack_settled(const struct pack *pack, const struct stat *st)
{
    return pack->now_ns - st->st_mtim.tv_sec * NS_PER_S - st->st_mtim.tv_nsec > SETTLED_NS &&
           pack->now_ns - st->st_ctim.tv_sec * NS_PER_S - st->st_ctim.tv_nsec > SETTLED_NS;
}

/* The blocks that hold exactly so much; NULL: not known. */
const struct block_key *pack_known_find(struct pack *pack, const uint8_t print[32], uint64_t bytes,
                                        size_t *ret_n)
{
    const struct manifest_known *known = pack->options ? pack->options->known : NULL;

    pack->known.size = 0;
    if (!known || known->find(known->user, print, &pack->known) != 0)
        return NULL;
    const struct block_key *keys = (const struct block_key *)(const void *)pack->known.data;
    *ret_n = pack->known.size / sizeof(*keys);
    for (size_t i = 0; i < *ret_n && keys[i].body_bytes <= bytes; i++)
        bytes -= keys[i].body_bytes;
    return bytes == 0 && *ret_n > 0 ? keys : NULL;
}

int pack_news_add(struct pack *pack, const uint8_t print[32], const Wl__FileEntry *entry,
                  const struct pack_block *block)
{
    struct pack_news news = {.entry = entry, .block = block};

    if (!pack->options || !pack->options->known)
        return 0;
    memcpy(news.print, print, sizeof(news.print));
    return bytes_append(&pack->news, &news, sizeof(news));
}

/* All keys are there. What cannot be kept is read again the next time. */
void pack_news_keep(struct pack *pack)
{
    const struct pack_news *news = (const struct pack_news *)(const void *)pack->news.data;

    for (size_t i = 0; i < pack->news.size / sizeof(*news); i++) {
        const struct manifest_known *known = pack->options->known;

        pack->known.size = 0;
        for (size_t k = 0; news[i].entry && k < news[i].entry->n_parts; k++) {
            struct block_key key;

            if (wire_block_key(news[i].entry->parts[k]->block, &key) ||
                bytes_append(&pack->known, &key, sizeof(key)) < 0)
                return;
        }
        if (news[i].block &&
            bytes_append(&pack->known, &news[i].block->key, sizeof(news[i].block->key)) < 0)
            return;
        known->keep(known->user, news[i].print,
                    (const struct block_key *)(const void *)pack->known.data,
                    pack->known.size / sizeof(struct block_key));
    }
}

void pack_blocks_deinit(struct pack *pack)
{
    crew_deinit(&pack->crew);
    for (size_t i = 0; i < pack->n_jobs; i++) {
        sealer_free(pack->jobs[i].sealer);
        bytes_wipe_deinit(&pack->jobs[i].data);
        bytes_deinit(&pack->jobs[i].sealed);
    }
    free(pack->jobs);
    list_for_each_safe (node, after, &pack->blocks)
        free(list_entry(node, struct pack_block, node));
    block_set_deinit(&pack->emitted);
    bytes_wipe_deinit(&pack->news);
    bytes_wipe_deinit(&pack->known);
    bytes_deinit(&pack->sealed);
}
