/* homing.h - one job's results on their way below one folder: fetch.c finds them, homing.c writes
 * them.
 *
 * Owns:    struct homing lies with westlight_fetch; homing_deinit frees what it holds.
 * Errors:  WESTLIGHT_E_*, -errno, with westlight_why. Files that are in the way are counted in
 *          `conflicts` and left alone; they end nothing.
 */
#pragma once

#include <client/arrivals.h>
#include <client/look.h>
#include <client/landing.h>
#include <client/reader.h>
#include <client/receipts.h>

#define HOMING_PAGES 20 /* of results that are put in order together: some 1.3 MB */

struct homing {
    struct westlight *westlight;
    struct westlight_fetch *fetch;
    char id[WESTLIGHT_ID_TEXT];
    uint8_t job[WESTLIGHT_ID_BYTES];
    uint8_t job_key[32];
    int64_t submitted_wall_s; /* a newer job's results replace an older's */
    struct look_steps *steps;
    bool *interim; /* of each step: its results do not come home */
    size_t n_interim;
    char ***places; /* [step][declared output]: "" or the sub-folder's name */
    size_t *n_places;
    char *folder; /* absolute */
    int fd;       /* of it */
    struct receipts receipts;
    struct arrivals arrivals;
    struct blocks blocks;
    struct reader reader;
    struct landing landing;
    uint64_t files_done, results_done, results_known;
    uint64_t ended[HOMING_PAGES * LIMIT_RESULTS_PAGE]; /* sequences past fetch->after: home, or not to be had */
    size_t n_ended;
    bool delivers; /* what is home is acknowledged */
    Wl__DeliveredRun *runs; /* home, and not acknowledged yet: each of one result */
    size_t n_runs, runs_capacity;
    uint64_t conflicts;
    char conflict[512];  /* the first, in words */
    uint64_t damaged;    /* results that the broker has and cannot give: left out, they end nothing */
    char damage[768];    /* the first, in words */
    int64_t progress_ns; /* when something last arrived */
};

/* A result with its manifest opened; file paths are below the folder already. */
struct homing_result {
    const Wl__ResultRow *row;
    Wl__Manifest *manifest;

    /* homing_write's: */
    bool *written;    /* [file] */
    size_t looked_at; /* files */
    size_t n_landing; /* files of it that are not durable yet */
    uint64_t n_written, conflicts;
    bool begun;   /* all files are looked at */
    bool damaged; /* it does not count, and stops nothing */
    bool failed;
};

/* Names the sub-folder of every declared output: none where only one folder is declared. */
int homing_places(struct homing *homing, const Wl__Recipe *recipe);
void homing_deinit(struct homing *homing);
/* A result that stays where it is: nothing more is due for it. */
int homing_pass(struct homing *homing, const Wl__ResultRow *row);
/* A result of which a block is gone, of that file (NULL: of their list): counted, with westlight_why;
 * false for other errors. */
bool homing_damaged(struct homing *homing, const Wl__ResultRow *row, const char *path, int r);
/* Writes the files of some results, in order. */
int homing_write(struct homing *homing, struct homing_result *results, size_t n);
