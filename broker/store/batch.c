/* batch.c - see batch.h. */
#include <stdlib.h>
#include <string.h>
#include <broker/store/batch.h>

static size_t record_extra_bytes(const struct record *record)
{
    if (record->kind == RECORD_JOB) {
        const struct job_spec *spec = record->submit.spec;
        /* The spec comes first in its piece and wants its alignment: pieces are rounded up. */
        return sizeof *spec + (spec->name ? strlen(spec->name) : 0) + 1 + spec->blob_size;
    }
    if (record->kind == RECORD_TEND)
        return strlen(record->tend.text) + 1;
    if (record->kind == RECORD_EDIT)
        return (record->edit.name ? strlen(record->edit.name) + 1 : 0) + record->edit.blob_size;
    return record->kind == RECORD_ATTEMPT ? record->attempt.blob_size : 0;
}

static size_t round_up(size_t size)
{
    return (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
}

static void copy_into(struct record *record, char *piece)
{
    if (record->kind == RECORD_ATTEMPT) {
        if (record->attempt.blob_size)
            memcpy(piece, record->attempt.blob, record->attempt.blob_size);
        record->attempt.blob = piece;
    } else if (record->kind == RECORD_TEND) {
        record->tend.text = memcpy(piece, record->tend.text, strlen(record->tend.text) + 1);
    } else if (record->kind == RECORD_EDIT) {
        size_t name_size = record->edit.name ? strlen(record->edit.name) + 1 : 0;

        if (name_size)
            record->edit.name = memcpy(piece, record->edit.name, name_size);
        if (record->edit.blob_size)
            memcpy(piece + name_size, record->edit.blob, record->edit.blob_size);
        record->edit.blob = piece + name_size;
        record->edit.spaces = NULL;
        record->edit.n_spaces = 0;
    } else if (record->kind == RECORD_JOB) {
        struct job_spec *spec = (struct job_spec *)piece;
        const char *name = record->submit.spec->name ? record->submit.spec->name : "";
        char *name_copy = piece + sizeof *spec;
        char *blob_copy = name_copy + strlen(name) + 1;

        *spec = *record->submit.spec;
        spec->steps = NULL;
        spec->n_steps = 0;
        memcpy(name_copy, name, strlen(name) + 1);
        if (spec->blob_size)
            memcpy(blob_copy, spec->blob, spec->blob_size);
        spec->name = name_copy;
        spec->blob = blob_copy;
        record->submit.spec = spec;
    }
}

struct batch *batch_new(uint64_t number, const struct record *records, size_t n_records)
{
    size_t head = round_up(sizeof(struct batch) + n_records * sizeof *records);
    size_t size = head;
    for (size_t i = 0; i < n_records; i++)
        size += round_up(record_extra_bytes(&records[i]));

    struct batch *batch = malloc(size);
    if (!batch)
        return NULL;
    *batch = (struct batch){.number = number, .bytes = size, .n_records = n_records};
    if (n_records)
        memcpy(batch->records, records, n_records * sizeof *records);
    char *piece = (char *)batch + head;
    for (size_t i = 0; i < n_records; i++) {
        copy_into(&batch->records[i], piece);
        piece += round_up(record_extra_bytes(&records[i]));
    }
    return batch;
}
