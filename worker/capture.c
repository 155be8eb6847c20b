/* capture.c - one pass over the bytes; every table of words is here, in one place.
 *
 * Renderers are read by prefix and by substring, never by a grammar: their words change between
 * versions, and a line that is not understood costs nothing but a progress bar that waits.
 */
#include <worker/capture.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>

#define CAPTURE_GAP_BYTES  128 /* the line that says what was left out */
#define CAPTURE_TAIL_BYTES (LIMIT_LOG_BYTES - CAPTURE_HEAD_BYTES - CAPTURE_GAP_BYTES)
#define CAPTURE_FIRST_BYTES (16 * 1024)
#define CAPTURE_SEEK_BYTES 4096 /* how far into the tail a line's start is looked for */

/* How much a line tells; the first line of the highest rank is kept. */
enum rank { RANK_NONE, RANK_HINT, RANK_MISSING, RANK_MEMORY, RANK_LICENCE };

struct capture {
    struct capture_config config;
    char status[CAPTURE_STATUS_BYTES];
    uint32_t permille;
    bool renders, changed;
    bool told; /* by openjd_progress: */

    uint64_t frames_started, frames_said, frame; /* `frame`: the number Blender gave last */
    double fraction;                             /* of the current frame */

    struct capture_findings findings;
    enum rank rank;
    bool continues, failed; /* the message goes on in the next line; openjd_fail: gave it */

    size_t line_size;
    bool line_cut; /* what follows belongs to a line whose first piece was matched */

    uint8_t *log; /* at most LIMIT_LOG_BYTES: the head, then a ring */
    size_t log_capacity;
    uint64_t log_bytes; /* ever fed */

    char line[CAPTURE_LINE_BYTES + 1]; /* last: what is past line_size is not set */
};

int capture_new(const struct capture_config *config, struct capture **ret_capture)
{
    _cleanup_(capture_freep) struct capture *capture = malloc(sizeof(*capture));

    if (!capture)
        return -ENOMEM;
    memset(capture, 0, offsetof(struct capture, line));
    capture->config = *config;
    capture_begin(capture, false);

    *ret_capture = TAKE_PTR(capture);
    return 0;
}

void capture_free(struct capture *capture)
{
    if (!capture)
        return;
    free(capture->log);
    free(capture);
}

void capture_begin(struct capture *capture, bool renders)
{
    capture->renders = renders;
    capture->told = capture->continues = capture->failed = false;
    capture->permille = 0;
    capture->frames_started = capture->frames_said = 0;
    capture->fraction = 0;
    capture->findings = (struct capture_findings){.class = CLASS_OK};
    capture->rank = RANK_NONE;
    capture->line_size = 0;
    capture->line_cut = false;
}

const struct capture_findings *capture_findings(const struct capture *capture)
{
    return &capture->findings;
}

/* ---- the log ---- */

/* It grows with the log, since most are short. Where there is no memory for more, what is past that
 * is not kept. */
static bool log_grow(struct capture *capture, size_t size)
{
    size_t most = CAPTURE_HEAD_BYTES + CAPTURE_TAIL_BYTES, capacity = capture->log_capacity;
    uint8_t *log;

    while (capacity < most && capacity < capture->log_bytes + size)
        capacity = capacity ? 4 * capacity : CAPTURE_FIRST_BYTES;
    capacity = capacity < most ? capacity : most;
    if (capacity == capture->log_capacity)
        return true;
    log = realloc(capture->log, capacity);
    if (!log)
        return false;
    capture->log = log;
    capture->log_capacity = capacity;
    return true;
}

static void log_feed(struct capture *capture, const uint8_t *data, size_t size)
{
    if (!log_grow(capture, size))
        return;
    while (size > 0) {
        uint64_t at = capture->log_bytes;
        size_t room, n;

        if (at >= CAPTURE_HEAD_BYTES)
            at = CAPTURE_HEAD_BYTES + (at - CAPTURE_HEAD_BYTES) % CAPTURE_TAIL_BYTES;
        room = at < CAPTURE_HEAD_BYTES ? CAPTURE_HEAD_BYTES - at
                                       : CAPTURE_HEAD_BYTES + CAPTURE_TAIL_BYTES - at;
        n = size < room ? size : room;
        memcpy(capture->log + at, data, n);
        capture->log_bytes += n;
        data += n;
        size -= n;
    }
}

/* The tail starts where a line does, if one starts soon. */
static size_t tail_skip(const struct capture *capture, size_t start)
{
    const uint8_t *tail = capture->log + CAPTURE_HEAD_BYTES;

    for (size_t i = 0; i < CAPTURE_SEEK_BYTES; i++)
        if (tail[(start + i) % CAPTURE_TAIL_BYTES] == '\n')
            return i + 1;
    return 0;
}

int capture_log(const struct capture *capture, struct bytes *ret_log)
{
    _cleanup_(bytes_deinit) struct bytes log = {0};
    const uint8_t *tail = capture->log ? capture->log + CAPTURE_HEAD_BYTES : NULL;
    uint64_t past = capture->log_bytes > CAPTURE_HEAD_BYTES ? capture->log_bytes - CAPTURE_HEAD_BYTES
                                                            : 0;
    int r = bytes_append(&log, capture->log, capture->log_bytes - past);

    if (!r && past <= CAPTURE_TAIL_BYTES)
        r = bytes_append(&log, tail, past);
    if (!r && past > CAPTURE_TAIL_BYTES) {
        size_t start = past % CAPTURE_TAIL_BYTES, skip = tail_skip(capture, start);
        size_t size = CAPTURE_TAIL_BYTES - skip, first;

        start = (start + skip) % CAPTURE_TAIL_BYTES;
        first = size < CAPTURE_TAIL_BYTES - start ? size : CAPTURE_TAIL_BYTES - start;
        r = bytes_printf(&log, "\n[... %llu bytes left out ...]\n",
                         (unsigned long long)(past - size));
        if (!r)
            r = bytes_append(&log, tail + start, first);
        if (!r)
            r = bytes_append(&log, tail, size - first);
    }
    if (r)
        return r;

    *ret_log = log;
    log = (struct bytes){0};
    return 0;
}

/* ---- text ---- */

/* Bytes of the sequence at `text`, 0 where it is none that may be shown. */
static size_t utf8_size(const unsigned char *text, size_t left)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = text[0] < 0x80   ? 1
                  : text[0] < 0xc0 ? 0
                  : text[0] < 0xe0 ? 2
                  : text[0] < 0xf0 ? 3
                  : text[0] < 0xf8 ? 4
                                   : 0;
    uint32_t value = size > 1 ? text[0] & (0xffu >> (size + 1)) : text[0];

    if (size == 0 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text[i] & 0x3fu);
    }
    if (value < smallest[size] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return 0;
    return value < 0x20 || (value >= 0x7f && value < 0xa0) ? 0 : size;
}

void capture_clean(const char *text, size_t text_size, char *ret_clean, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < text_size && text[i];) {
        const unsigned char *at = (const unsigned char *)text + i;
        size_t bytes = utf8_size(at, text_size - i);

        if (n + (bytes ? bytes : 1) >= size)
            break;
        if (bytes)
            memcpy(ret_clean + n, at, bytes);
        else
            ret_clean[n] = isspace(*at) || *at == 27 ? ' ' : '?';
        n += bytes ? bytes : 1;
        i += bytes ? bytes : 1;
    }
    while (n > 0 && ret_clean[n - 1] == ' ')
        n--;
    ret_clean[n] = 0;
}

/* ---- why it failed ---- */

static void find(struct capture *capture, enum rank rank, enum attempt_class class, const char *line)
{
    if (rank <= capture->rank)
        return;
    capture->rank = rank;
    capture->findings.class = class;
    if (capture->failed)
        return;
    while (*line == ' ')
        line++;
    capture_clean(line, strlen(line), capture->findings.message, sizeof(capture->findings.message));
    capture->continues = capture->config.software && strcmp(capture->config.software, "povray") == 0;
}

static bool any_of(const char *line, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcasestr(line, words[i]))
            return true;
    return false;
}
#define ANY_OF(line, words) any_of(line, words, ARRAY_SIZE(words))

static void read_reasons(struct capture *capture, const char *line)
{
    /* With "licen" in the line. Beside plain words: FlexLM's "licensed number of users already
     * reached" (Maya), RLM's "all licenses in use" (Arnold, Redshift, Nuke), Houdini's "no licenses
     * could be found", V-Ray's "could not obtain a license" and "license server error", Maya's
     * "license was not obtained", RenderMan's "unable to obtain license". */
    static const char *const licences[] = {
        "not available", "unavailable", "failed",     "failure",      "could not",      "cannot",
        "can't",         "unable",      "checkout",   "check out",    "checking out",   "denied",
        "expired",       "no licen",    "not found",  "in use",       "already reached", "not obtained",
        "no available",  "license error", "licensing error", "server error", "no valid", "not respond",
        "communicating",
    };
    static const char *const memory[] = {"out of memory", "out_of_memory", "std::bad_alloc",
                                         "cannot allocate memory", "MemoryError"};
    static const char *const missing[] = {
        "cannot find file",        "could not find file",    "cannot open include file",
        "cannot open input file",  "cannot find image file", "cannot find font file",
        "no such file or directory", "cannot read file",     "file not found",
    };
    /* Said at every start of POV-Ray without a user's configuration; an output; a warning. */
    static const char *const harmless[] = {"configuration file", "cannot create", "can't create",
                                           "warning", "povray.conf"};
    static const char *const hints[] = {"error:", "error -", "fatal error", "exception:", "cannot create"};

    if (strcasestr(line, "licen") && ANY_OF(line, licences))
        find(capture, RANK_LICENCE, CLASS_LICENCE, line);
    else if (ANY_OF(line, memory))
        find(capture, RANK_MEMORY, CLASS_OUT_OF_MEMORY, line);
    else if (ANY_OF(line, missing) && !ANY_OF(line, harmless))
        find(capture, RANK_MISSING, CLASS_MISSING_INPUT, line);
    else if (ANY_OF(line, hints))
        find(capture, RANK_HINT, CLASS_RENDERER, line);
}

/* POV-Ray wraps its messages; what is wrapped begins with one space. */
static bool read_continuation(struct capture *capture, const char *line)
{
    char *message = capture->findings.message;
    size_t size = strlen(message);

    if (!capture->continues || line[0] != ' ' || line[1] == ' ' || line[1] == 0) {
        capture->continues = false;
        return false;
    }
    if (size + 2 < sizeof(capture->findings.message))
        capture_clean(line, strlen(line), message + size, sizeof(capture->findings.message) - size);
    return true;
}

/* ---- openjd_*: ---- */

static bool name_valid(const char *name, size_t size)
{
    if (size == 0 || size > LIMIT_NAME_BYTES || isdigit((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    return true;
}

static void set_status(struct capture *capture, const char *text)
{
    char clean[CAPTURE_STATUS_BYTES];

    capture_clean(text, strlen(text), clean, sizeof(clean));
    if (strcmp(clean, capture->status) == 0)
        return;
    strcpy(capture->status, clean);
    capture->changed = true;
}

static void set_permille(struct capture *capture, double part)
{
    uint32_t permille = part >= 1 ? 1000 : part > 0 ? (uint32_t)(part * 1000) : 0;

    if (permille <= capture->permille)
        return;
    capture->permille = permille;
    capture->changed = true;
}

static void openjd_progress(struct capture *capture, const char *text)
{
    char *end;
    double percent = strtod(text, &end);

    if (end == text || !(percent >= 0 && percent <= 100) || !capture->renders)
        return;
    capture->told = true;
    set_permille(capture, percent / 100 + 1e-9);
}

static void openjd_fail(struct capture *capture, const char *text)
{
    capture_clean(text, strlen(text), capture->findings.message, sizeof(capture->findings.message));
    capture->failed = capture->findings.message[0] != 0;
    capture->continues = false;
    if (capture->findings.class == CLASS_OK)
        capture->findings.class = CLASS_RENDERER;
}

static void openjd_env(struct capture *capture, const char *text)
{
    const char *equals = strchr(text, '=');
    char name[LIMIT_NAME_BYTES + 1];

    if (!equals || !name_valid(text, (size_t)(equals - text))) {
        find(capture, RANK_HINT, CLASS_RENDERER, "an openjd_env: line is not NAME=VALUE");
        return;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(equals - text), text);
    if (capture->config.on_variable)
        capture->config.on_variable(capture->config.user, name, equals + 1);
}

static void openjd_unset_env(struct capture *capture, const char *text)
{
    if (capture->config.on_variable && name_valid(text, strlen(text)))
        capture->config.on_variable(capture->config.user, text, NULL);
}

static bool read_openjd(struct capture *capture, const char *line)
{
    static const struct {
        const char *prefix;
        void (*read)(struct capture *capture, const char *text);
    } messages[] = {
        {"openjd_progress:", openjd_progress}, {"openjd_status:", set_status},
        {"openjd_fail:", openjd_fail},         {"openjd_env:", openjd_env},
        {"openjd_unset_env:", openjd_unset_env},
    };

    if (strncmp(line, "openjd_", 7) != 0)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        size_t size = strlen(messages[i].prefix);

        if (strncmp(line, messages[i].prefix, size) != 0)
            continue;
        for (line += size; *line == ' ' || *line == '\t';)
            line++;
        messages[i].read(capture, line);
        return true;
    }
    return false;
}

/* ---- the renderers ---- */

static void frame_started(struct capture *capture)
{
    capture->frames_started++;
    capture->fraction = 0;
}

static void frame_progress(struct capture *capture, const char *what)
{
    uint64_t total = capture->config.frames ? capture->config.frames : 1;
    uint64_t before = capture->frames_started ? capture->frames_started - 1 : 0;
    char status[CAPTURE_STATUS_BYTES];

    if (capture->frames_said > total)
        total = capture->frames_said;
    if (before >= total)
        total = before + 1;
    if (total > 1)
        snprintf(status, sizeof(status), "frame %llu of %llu: %.200s",
                 (unsigned long long)before + 1, (unsigned long long)total, what);
    else
        snprintf(status, sizeof(status), "%.200s", what);
    set_status(capture, status);
    if (capture->fraction > 1)
        capture->fraction = 1;
    set_permille(capture, ((double)before + capture->fraction) / (double)total);
}

static void read_povray(struct capture *capture, const char *line)
{
    unsigned long long done, all;

    if (strncmp(line, "==== [Rendering...]", 19) == 0)
        frame_started(capture);
    else if (sscanf(line, "Rendering frame %llu of %llu", &done, &all) == 2)
        capture->frames_said = all;
    else if (sscanf(line, "Rendered %llu of %llu pixels", &done, &all) == 2 && all > 0) {
        capture->fraction = (double)done / (double)all;
        frame_progress(capture, line);
    }
}

/* "Rendered 3/16 Tiles, Sample 12/64", "Sample 12/64", "Rendering 12 / 64 samples". */
static bool blender_fraction(const char *text, double *ret_fraction)
{
    const char *sample = strstr(text, "Sample "), *tiles = strstr(text, "Rendered ");
    const char *eevee = strstr(text, "Rendering ");
    unsigned long long done, all;
    double part = 0;
    bool found = false;

    if ((sample && sscanf(sample, "Sample %llu/%llu", &done, &all) == 2 && all > 0) ||
        (eevee && sscanf(eevee, "Rendering %llu / %llu samples", &done, &all) == 2 && all > 0)) {
        part = (double)done / (double)all;
        found = true;
    }
    if (tiles && sscanf(tiles, "Rendered %llu/%llu Tiles", &done, &all) == 2 && all > 0) {
        part = ((double)done + (part < 1 ? part : 0)) / (double)all;
        found = true;
    }
    if (found)
        *ret_fraction = part;
    return found;
}

static void read_blender(struct capture *capture, const char *line)
{
    const char *last = strrchr(line, '|');
    unsigned long long frame;

    if (strncmp(line, "Saved: '", 8) == 0) {
        capture->fraction = 1;
        frame_progress(capture, "saved");
    }
    if (sscanf(line, "Fra:%llu", &frame) != 1 || !last)
        return;
    if (capture->frames_started == 0 || frame != capture->frame)
        frame_started(capture);
    capture->frame = frame;
    blender_fraction(last, &capture->fraction);
    frame_progress(capture, last[1] == ' ' ? last + 2 : last + 1);
}

static void read_line(struct capture *capture)
{
    const char *software = capture->config.software, *line = capture->line;

    capture->line[capture->line_size] = 0;
    if (capture->line_size == 0 || read_openjd(capture, line) || read_continuation(capture, line))
        return;
    read_reasons(capture, line);
    if (!capture->renders || capture->told || !software)
        return;
    if (strcmp(software, "povray") == 0)
        read_povray(capture, line);
    else if (strcmp(software, "blender") == 0)
        read_blender(capture, line);
}

/* ---- bytes to lines ---- */

static void line_end(struct capture *capture)
{
    if (!capture->line_cut)
        read_line(capture);
    capture->line_size = 0;
    capture->line_cut = false;
}

static void line_feed(struct capture *capture, const char *data, size_t size)
{
    size_t room = CAPTURE_LINE_BYTES - capture->line_size;

    if (capture->line_cut)
        return;
    memcpy(capture->line + capture->line_size, data, size < room ? size : room);
    capture->line_size += size < room ? size : room;
    if (size > room) {
        read_line(capture);
        capture->line_cut = true;
    }
}

static void progress(struct capture *capture)
{
    if (capture->changed && capture->config.on_progress)
        capture->config.on_progress(capture->config.user, capture->permille, capture->status);
    capture->changed = false;
}

void capture_feed(struct capture *capture, const void *data, size_t size)
{
    const char *text = data;

    log_feed(capture, data, size);
    while (size > 0) {
        size_t n = 0;

        while (n < size && text[n] != '\n' && text[n] != '\r')
            n++;
        line_feed(capture, text, n);
        if (n == size)
            break;
        line_end(capture);
        text += n + 1;
        size -= n + 1;
    }
    progress(capture);
}

void capture_end(struct capture *capture)
{
    line_end(capture);
    progress(capture);
}
