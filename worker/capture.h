/* capture.h - what an action writes: kept within bounds, and read for progress and for reasons.
 *
 * The idea: bytes go three ways at once. The log keeps the head and the newest tail. Lines, which
 * end at a newline or a carriage return, are matched for openjd_*: messages and for the renderers'
 * own words. And the first line that tells why an action failed is remembered, with its class.
 *
 * Shape:   one capture a session; capture_begin before each action forgets the last one's findings
 *          (the log goes on). A line is cut at CAPTURE_LINE_BYTES; only its first piece is matched.
 * Progress: permille of the action, never backwards. After an openjd_progress: line the renderer's
 *          own words no longer count. At most one call of on_progress for each capture_feed.
 * Owns:    the capture owns its buffers; texts given to callbacks are borrowed for the call.
 * Errors:  -ENOMEM from capture_new and capture_log; feeding cannot fail.
 * Source:  Open Job Description "How Jobs Are Run", "Stdout/Stderr Messages"; the output of POV-Ray
 *          3.7 and Blender 3.4.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/state.h>

#define CAPTURE_LINE_BYTES   (LIMIT_TEXT_BYTES + 512) /* holds the longest variable */
#define CAPTURE_HEAD_BYTES   (1024 * 1024)            /* of the log; the rest of it is tail */
#define CAPTURE_STATUS_BYTES LIMIT_NAME_BYTES

struct capture_config {
    const char *software; /* "povray", "blender": whose words to read; NULL or other: none */
    uint64_t frames;      /* how many the task renders; 0 is 1 */
    void (*on_progress)(void *user, uint32_t permille, const char *status); /* may be NULL */
    /* An environment variable set, or unset where `value` is NULL. May be NULL. */
    void (*on_variable)(void *user, const char *name, const char *value);
    void *user;
};

/* What the action's lines say of its failure, if it fails. */
struct capture_findings {
    enum attempt_class class; /* CLASS_OK: nothing known */
    char message[LIMIT_MESSAGE_BYTES]; /* "": nothing known */
};

struct capture;
int capture_new(const struct capture_config *config, struct capture **ret_capture);
void capture_free(struct capture *capture);
DEFINE_CLEANUP(struct capture *, capture_free)

/* `renders`: the action is the task's, so the renderer's progress counts. */
void capture_begin(struct capture *capture, bool renders);
void capture_feed(struct capture *capture, const void *data, size_t size);
/* The last line, which may have no end. */
void capture_end(struct capture *capture);
const struct capture_findings *capture_findings(const struct capture *capture);
/* Head, a line that says how many bytes were left out, tail: at most LIMIT_LOG_BYTES. */
int capture_log(const struct capture *capture, struct bytes *ret_log);

/* Copies text that a peer or a terminal may show: whole UTF-8 sequences, no control characters. */
void capture_clean(const char *text, size_t text_size, char *ret_clean, size_t size);
