/* show.h - how things read on a terminal and as JSON. Widths fit 80 columns; colour only on a
 * terminal, and never with NO_COLOR.
 */
#pragma once

#include <jansson.h>
#include <client/inputs.h>

/* "1.2 MB", "3 min 12 s", "2026-11-24 03:16": text holds at least 32 bytes; returned. */
const char *show_bytes(uint64_t bytes, char text[32]);
const char *show_seconds(double seconds, char text[32]);
const char *show_time(int64_t wall_s, char text[32]);


/* How much of an upload is done, of 100; 99.9 is not all of it. */
unsigned show_percent(uint64_t bytes_done, uint64_t bytes);

void show_row_head(void);
void show_row(const struct westlight_row *row);
void show_job(const struct westlight_shown *shown);
void show_worker_head(void);
void show_worker(const struct westlight_worker *worker);

/* A text from elsewhere (a name, a path, a message) need be no UTF-8: what is none becomes U+FFFD.
 * Everything that did not come from this program goes through here. */
json_t *show_text_json(const char *text);
json_t *show_row_json(const struct westlight_row *row);
json_t *show_job_json(const struct westlight_shown *shown);
json_t *show_worker_json(const struct westlight_worker *worker);
json_t *show_warning_json(const struct westlight_attempt *attempt);
json_t *show_attempt_json(const struct westlight_attempt *attempt);
/* What would travel. */
void show_inputs(const struct inputs *inputs, const struct westlight_upload *upload);
json_t *show_inputs_json(const struct inputs *inputs, const struct westlight_upload *upload);
/* Prints and releases. One line per document where `line`. */
void show_json(json_t *json, bool line);

/* How fast a job goes, as far as it was seen; zeroed at first. */
#define SHOW_PACE_TASKS 3 /* so many tell how long the others take */
struct show_pace {
    bool begun;
    double from, at; /* seconds */
    uint64_t first, done;
};
/* The bar (say.h): tasks done, what runs, the time so far and the time left. `unit` is what a task
 * is called. False where there is no terminal. */
bool show_progress(struct show_pace *pace, const struct westlight_counts *counts, const char *unit,
                   double seconds);
