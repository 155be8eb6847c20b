/* checksum.c - what a row says, as words. */
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/pack.h>

static uint64_t add(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

/* With its size, so that no two parts can trade bytes. */
static uint64_t add_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *at = data;
    uint64_t word;

    hash = add(hash, size);
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = add(hash, word);
    }
    word = 0;
    if (size)
        memcpy(&word, at, size);
    return size ? add(hash, word) : hash;
}

/* The same of much, in four lanes, since each step waits for the one before it. */
static uint64_t add_much(uint64_t hash, const void *data, size_t size)
{
    uint64_t lanes[4] = {hash, ~hash, hash << 1 | 1, hash ^ size}, words[4];
    const uint8_t *at = data;

    for (; size >= sizeof words; size -= sizeof words, at += sizeof words) {
        memcpy(words, at, sizeof words);
        for (size_t i = 0; i < 4; i++)
            lanes[i] = add(lanes[i], words[i]);
    }
    hash = add(add(add(add(hash, lanes[0]), lanes[1]), lanes[2]), lanes[3]);
    return add_bytes(hash, at, size);
}

static uint64_t add_text(uint64_t hash, const char *text)
{
    return add_bytes(hash, text ? text : "", text ? strlen(text) : 0);
}

static uint64_t add_lease(uint64_t hash, const struct lease_id *lease,
                          const struct worker_key *worker)
{
    hash = add(add(hash, lease->task.step), lease->task.index);
    hash = add(add(add(hash, lease->floor), lease->epoch), lease->attempt);
    return add_bytes(hash, worker->bytes, sizeof worker->bytes);
}

static uint64_t add_attempt(uint64_t hash, const struct record *record)
{
    const struct usage *usage = &record->attempt.usage;

    hash = add_lease(hash, &record->attempt.lease, &record->attempt.worker);
    hash = add(add(hash, record->attempt.class), record->attempt.warned);
    hash = add(add(add(hash, usage->wall_ns), usage->cpu_ns), usage->memory_bytes);
    hash = add(add(add(hash, usage->bytes_in), usage->bytes_out), usage->card_ns);
    return add_bytes(hash, record->attempt.blob, record->attempt.blob_size);
}

static uint64_t add_change(uint64_t hash, const struct record *record)
{
    const struct task_range *range = &record->change.range;

    hash = add(add(add(add(hash, record->change.change), range->step), range->first), range->last);
    return add(add(add(hash, record->change.floor), record->change.state), record->change.reason);
}

static uint64_t add_request(uint64_t hash, const struct record *record)
{
    hash = add(hash, record->request.studio.value);
    hash = add_bytes(hash, record->request.request.bytes, sizeof(struct request_id));
    hash = add_bytes(hash, record->request.digest.bytes, sizeof(struct request_digest));
    return add(add(hash, record->request.code), record->request.tasks);
}

int64_t checksum_record(const struct record *record, int64_t number)
{
    static const struct job_id none;
    const struct job_id *job = record->kind == RECORD_TEND || record->kind == RECORD_CLOCK ? &none : &record->job;
    uint64_t hash = add(add(record->kind + 1, record->sequence), (uint64_t)record->wall_s);

    hash = add_bytes(add(hash, (uint64_t)number), job->bytes, sizeof job->bytes);
    switch (record->kind) {
    case RECORD_JOB: {
        const struct job_spec *spec = record->submit.spec;

        hash = add_text(add(hash, spec->studio.value), spec->name);
        hash = add_bytes(add(hash, (uint32_t)spec->priority), spec->blob, spec->blob_size);
        break;
    }
    case RECORD_ATTEMPT:
        hash = add_attempt(hash, record);
        break;
    case RECORD_CHANGE:
        hash = add_change(hash, record);
        break;
    case RECORD_EDIT:
        hash = add_bytes(hash, record->edit.blob, record->edit.blob_size);
        break;
    case RECORD_NOTE:
        hash = add_lease(hash, &record->note.lease, &record->note.worker);
        hash = add(hash, record->note.gpu_mask);
        break;
    case RECORD_REQUEST:
        hash = add_request(hash, record);
        break;
    case RECORD_TEND:
        hash = add_bytes(hash, record->tend.worker.bytes, sizeof record->tend.worker.bytes);
        hash = add_text(add(hash, record->tend.tend), record->tend.text);
        hash = add(hash, (uint64_t)record->tend.until_wall_s);
        break;
    case RECORD_DELIVERED: {
        const struct delivered_run *run = &record->delivered;

        hash = add(add(add(hash, run->range.step), run->range.first), run->range.last);
        hash = add(hash, run->floor);
        break;
    }
    case RECORD_FORGET:
    case RECORD_UNASK:
        hash = add(hash, record->forget.studio.value);
        break;
    case RECORD_CLOCK:
        hash = add(hash, (uint64_t)record->clock.ahead_s);
        break;
    }
    return (int64_t)hash;
}

int64_t checksum_pack(const struct pack *pack)
{
    uint64_t hash = add(add(add(103, pack->first), pack->last), (uint64_t)pack->wall_s);

    hash = add_bytes(add(hash, (uint64_t)pack->number), pack->job.bytes, sizeof pack->job.bytes);
    hash = add(add(add(hash, pack->step), pack->floor), pack->epoch);
    hash = add(add(add(hash, pack->page), pack->low), pack->high);
    hash = add_bytes(hash, pack->workers, pack->workers_size);
    hash = add_much(add(hash, pack->members_size), pack->members, pack->members_size);
    return (int64_t)add_much(add(hash, pack->blobs_size), pack->blobs, pack->blobs_size);
}

uint64_t checksum_task(int64_t number, uint32_t step, uint32_t floor, uint64_t task)
{
    return add(add(add(add(104, (uint64_t)number), step), floor), task) >> 8;
}

int64_t checksum_key(const struct key_row *row, int64_t added_wall_s)
{
    uint64_t hash = add_bytes(101, row->key.bytes, sizeof row->key.bytes);

    hash = add(add(hash, row->role), row->studio.value);
    return (int64_t)add(add_text(hash, row->name), (uint64_t)added_wall_s);
}

int64_t checksum_studio(uint32_t id, const char *name, uint32_t weight, uint64_t quota_bytes)
{
    return (int64_t)add(add(add_text(add(102, id), name), weight), quota_bytes);
}

int64_t checksum_token(const struct token_row *row)
{
    uint64_t hash = add(add_bytes(105, row->digest, sizeof row->digest), row->role);

    hash = add(add_text(add_text(hash, row->studio_name), row->pool), row->uses);
    return (int64_t)add(add(hash, row->approve), (uint64_t)row->until_wall_s);
}

int64_t checksum_newcomer(const struct newcomer_row *row)
{
    uint64_t hash = add_bytes(106, row->key.key.bytes, sizeof row->key.key.bytes);

    hash = add(add_bytes(hash, row->digest, sizeof row->digest), row->key.role);
    return (int64_t)add_text(add_text(add_text(hash, row->key.studio_name), row->pool),
                             row->key.name);
}
