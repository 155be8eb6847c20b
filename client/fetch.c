/* fetch.c - which results there are, until the job is finished or all are home.
 *
 * Results are listed in the order of their commit and have a sequence each, so "what is new" is one
 * number. Of those that wait, up to some pages, the lowest task comes home first, so that a
 * sequence grows without gaps. The manifests of some are opened together, then their files are
 * written (homing.c).
 */
#include <client/homing.h>
#include <client/recipe.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_NS NS_PER_S /* while the broker is away */
/* It can be said later as well, and files are waiting. */
#define ACKNOWLEDGE_NS (5 * NS_PER_S)
#define PIECES_MAX     64 /* blocks of manifests that are open together; one result may have more */

/* ---- before the first result ---- */

/* What tasks are called, and, the first time, where their files go: frames that were added since
 * change the first alone. */
static int open_recipe(struct homing *homing, const Wl__Show *show)
{
    Wl__Recipe *recipe = NULL;

    int r = recipe_open(&homing->blocks, homing->id, homing->job_key, show->recipe, &recipe);
    if (r != 0)
        return r;
    look_steps_free(homing->steps);
    homing->steps = NULL;
    r = look_steps_of_recipe(recipe, &homing->steps);
    if (r == 0 && !homing->places)
        r = homing_places(homing, recipe);
    wl__recipe__free_unpacked(recipe, NULL);
    return r;
}

static int open_folder(struct homing *homing)
{
    const char *folder = homing->fetch->folder;

    int r = folder_make(folder, 0777);
    if (r == 0) {
        homing->folder = realpath(folder, NULL);
        homing->fd = homing->folder ? open(homing->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        r = homing->fd < 0 ? -errno : 0;
    }
    if (r < 0)
        return connection_fail(homing->westlight, r, "folder %s: %s: choose another with -o",
                               folder, strerror(-r));
    r = receipts_open(&homing->receipts, homing->folder);
    if (r < 0)
        return connection_fail(homing->westlight, r,
                               "receipts: %s: check the folder that XDG_STATE_HOME names",
                               strerror(-r));
    arrivals_open(&homing->arrivals, homing->folder);
    homing->reader.arrivals = &homing->arrivals;
    return 0;
}

/* ---- some pages ---- */

static int ask_results(struct homing *homing, uint64_t after, Wl__Envelope **ret_answer)
{
    Wl__ResultsRequest request = WL__RESULTS_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    request.job = (ProtobufCBinaryData){sizeof(homing->job), homing->job};
    request.after = after;
    request.limit = LIMIT_RESULTS_PAGE;
    envelope.body_case = WL__ENVELOPE__BODY_RESULTS_REQUEST;
    envelope.results_request = &request;
    return connection_call(homing->westlight, &envelope, WL__ENVELOPE__BODY_RESULTS,
                           CONNECTION_TIMEOUT_NS, ret_answer);
}

/* Results that are not home, the lowest task first. */
struct waiting {
    Wl__Envelope *pages[HOMING_PAGES];
    size_t n_pages;
    Wl__ResultRow *rows[HOMING_PAGES * LIMIT_RESULTS_PAGE]; /* the pages' */
    size_t n_rows;
    uint64_t last; /* the highest sequence listed */
    bool more;
};

static void waiting_free(struct waiting *waiting)
{
    for (size_t i = 0; waiting && i < waiting->n_pages; i++)
        wire_free(waiting->pages[i]);
    free(waiting);
}
DEFINE_CLEANUP(struct waiting *, waiting_free)

static int by_task(const void *a, const void *b)
{
    const Wl__ResultRow *x = *(Wl__ResultRow *const *)a, *y = *(Wl__ResultRow *const *)b;

    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence); /* the newer over the older */
}

static bool ended(const struct homing *homing, uint64_t sequence)
{
    for (size_t i = 0; i < homing->n_ended; i++)
        if (homing->ended[i] == sequence)
            return true;
    return false;
}

/* Those that were ended before the link broke are listed again, and left out. */
static int list_waiting(struct homing *homing, struct waiting *waiting)
{
    waiting->last = homing->fetch->after;
    waiting->more = true;
    while (waiting->more && waiting->n_pages < HOMING_PAGES) {
        Wl__Envelope *answer = NULL;
        int r = ask_results(homing, waiting->last, &answer);
        if (r != 0)
            return r;
        const Wl__Results *page = answer->results;
        waiting->pages[waiting->n_pages++] = answer;
        if (page->n_results > LIMIT_RESULTS_PAGE)
            return -EPROTO;
        for (size_t i = 0; i < page->n_results; i++) {
            waiting->last = page->results[i]->sequence;
            if (!ended(homing, waiting->last))
                waiting->rows[waiting->n_rows++] = page->results[i];
        }
        waiting->more = page->more && page->n_results > 0;
    }
    if (waiting->n_rows > 0)
        qsort(waiting->rows, waiting->n_rows, sizeof(waiting->rows[0]), by_task);
    return 0;
}

/* One block of a manifest on its way: blocks of several results come together, in any order. */
struct piece {
    size_t result;
    const Wl__BlockRef *ref;
    struct bytes body;
};

/* Some results, whose manifests are in memory together. */
struct page {
    struct homing *homing;
    struct homing_result *results;
    size_t n;
    struct piece *pieces; /* in the order of the results and their blocks */
    size_t n_pieces;
    size_t *wanted; /* which piece a want is */
};

static int open_piece(struct page *page, struct piece *piece, const void *sealed, size_t size)
{
    const struct homing *homing = page->homing;
    const Wl__ResultRow *row = page->results[piece->result].row;
    char name[LIMIT_NAME_BYTES];
    uint8_t secret[32];
    struct block_key key;

    job_key_out(homing->job_key, row->step, row->task, row->floor, secret);
    int r =
        wire_block_ref(homing->westlight->sealer, secret, piece->ref, &key) != 0 ? SEAL_E_FORM : 0;
    wipe(secret, sizeof(secret));
    if (r == 0)
        r = open_block(homing->westlight->sealer, &key, sealed, size, &piece->body);
    look_task_name(homing->steps, row->step, row->task, name, sizeof(name));
    return blocks_opened(homing->westlight, r, name);
}

static int take_piece(void *user, size_t i, const void *sealed, size_t size)
{
    struct page *page = user;
    return open_piece(page, &page->pieces[page->wanted[i]], sealed, size);
}

/* Small manifests lie in the rows; the blocks of the others come in one request. */
static int open_pieces(struct page *page)
{
    _cleanup_(freep) struct transfer_want *wants = calloc(page->n_pieces + 1, sizeof(*wants));
    size_t n = 0;
    int r = wants ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < page->n_pieces; i++) {
        const Wl__BlockRef *ref = page->pieces[i].ref;
        if (ref->id.len != 32) {
            r = -EPROTO;
        } else if (ref->inline_sealed.len > 0) {
            r = open_piece(page, &page->pieces[i], ref->inline_sealed.data, ref->inline_sealed.len);
        } else {
            memcpy(wants[n].id.bytes, ref->id.data, 32);
            wants[n].sealed_bytes = ref->sealed_bytes;
            page->wanted[n++] = i;
        }
    }
    return r == 0 && n > 0 ? blocks_get(&page->homing->blocks, wants, n, take_piece, page) : r;
}

/* Its pieces begin at *at, which moves on to the next one's. */
static int join_manifest(struct page *page, size_t result, size_t *at)
{
    _cleanup_(bytes_deinit) struct bytes whole = {0}, why = {0};
    const Wl__ResultRow *row = page->results[result].row;
    char name[LIMIT_NAME_BYTES];
    int r = 0;

    for (; r == 0 && *at < page->n_pieces && page->pieces[*at].result == result; ++*at) {
        struct bytes *body = &page->pieces[*at].body;
        r = bytes_append(&whole, body->data, body->size);
        bytes_deinit(body);
    }
    if (r == 0)
        r = manifest_parse(whole.data, whole.size, &page->results[result].manifest, &why);
    if (r <= 0)
        return r;
    look_task_name(page->homing->steps, row->step, row->task, name, sizeof(name));
    return connection_fail(page->homing->westlight, WESTLIGHT_E_CORRUPT,
                           "%s: its list of files is not acceptable: %s", name,
                           why.size ? (const char *)why.data : "");
}

static int open_manifests(struct page *page)
{
    size_t n_pieces = 0, at = 0;
    int r;

    for (size_t i = 0; i < page->n; i++)
        n_pieces += page->results[i].row->n_manifest;
    page->pieces = calloc(n_pieces + 1, sizeof(*page->pieces));
    page->wanted = calloc(n_pieces + 1, sizeof(*page->wanted));
    if (!page->pieces || !page->wanted)
        return -ENOMEM;
    for (size_t i = 0; i < page->n; i++) {
        const Wl__ResultRow *row = page->results[i].row;
        if (row->n_manifest == 0)
            return -EPROTO;
        for (size_t k = 0; k < row->n_manifest; k++)
            page->pieces[page->n_pieces++] = (struct piece){.result = i, .ref = row->manifest[k]};
    }
    r = open_pieces(page);
    for (size_t i = 0; r == 0 && i < page->n; i++)
        r = join_manifest(page, i, &at);
    return r;
}

static void page_deinit(struct page *page)
{
    for (size_t i = 0; i < page->n_pieces; i++)
        bytes_deinit(&page->pieces[i].body);
    for (size_t i = 0; page->results && i < page->n; i++)
        if (page->results[i].manifest)
            wl__manifest__free_unpacked(page->results[i].manifest, NULL);
    free(page->pieces);
    free(page->wanted);
    free(page->results);
}

static bool stays(const struct homing *homing, const Wl__ResultRow *row)
{
    return row->step < homing->n_interim && homing->interim[row->step];
}

/* How many rows from `first` on have manifests that are opened together: one at least, but none
 * where the first stays on the farm. */
static size_t group(const struct homing *homing, const struct waiting *waiting, size_t first)
{
    size_t pieces = 0, i = first;

    for (; i < waiting->n_rows && !stays(homing, waiting->rows[i]); i++) {
        pieces += waiting->rows[i]->n_manifest;
        if (i > first && pieces > PIECES_MAX)
            break;
    }
    return i - first;
}

static int home_group(struct homing *homing, Wl__ResultRow *const *rows, size_t n)
{
    _cleanup_(page_deinit) struct page page = {.homing = homing, .n = n};
    int r;

    page.results = calloc(n, sizeof(*page.results));
    if (!page.results)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        page.results[i].row = rows[i];
    r = open_manifests(&page);
    return r == 0 ? homing_write(homing, page.results, n) : r;
}

/* Where a block of one is gone, the others come home one by one. */
static int home_rows(struct homing *homing, Wl__ResultRow *const *rows, size_t n)
{
    int r = home_group(homing, rows, n);

    if (n == 1)
        return r != 0 && homing_damaged(homing, rows[0], NULL, r) ? 0 : r;
    if (r != WESTLIGHT_E_CORRUPT && r != WESTLIGHT_E_UNKNOWN)
        return r;
    r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = home_rows(homing, rows + i, 1);
    return r;
}

/* A result of a frame that was added since the recipe was read. */
static int see_new_frames(struct homing *homing, const struct waiting *waiting)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    bool known = true;

    for (size_t i = 0; i < waiting->n_rows; i++)
        known &= look_knows(homing->steps, waiting->rows[i]->step, waiting->rows[i]->task);
    if (known)
        return 0;
    int r = look_show(homing->westlight, homing->job, &answer);
    return r == 0 ? open_recipe(homing, answer->show) : r;
}

static int run_order(const void *a, const void *b)
{
    const Wl__DeliveredRun *x = a, *y = b;

    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->floor < y->floor ? -1 : x->floor > y->floor;
}

/* In order, as the broker wants them; of a task that was rendered again the newest. */
static void sort_runs(struct homing *homing)
{
    Wl__DeliveredRun *runs = homing->runs;
    size_t n = 0;

    if (homing->n_runs > 0)
        qsort(runs, homing->n_runs, sizeof(*runs), run_order);
    for (size_t i = 0; i < homing->n_runs; i++) {
        if (n > 0 && runs[n - 1].step == runs[i].step && runs[n - 1].first == runs[i].first)
            n--;
        runs[n++] = runs[i];
    }
    homing->n_runs = n;
}

/* The first `n`; neighbours of one floor become one run. */
static int say_delivered(struct homing *homing, size_t n, int64_t patience_ns)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__Delivered delivered = WL__DELIVERED__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__DeliveredRun joined[LIMIT_PAGE], *runs[LIMIT_PAGE];

    for (size_t i = 0; i < n; i++) {
        const Wl__DeliveredRun *run = &homing->runs[i];
        Wl__DeliveredRun *last = delivered.n_runs ? runs[delivered.n_runs - 1] : NULL;

        if (last && last->step == run->step && last->floor == run->floor &&
            last->last + 1 == run->first) {
            last->last = run->last;
            continue;
        }
        joined[delivered.n_runs] = *run;
        runs[delivered.n_runs] = &joined[delivered.n_runs];
        delivered.n_runs++;
    }
    delivered.job = (ProtobufCBinaryData){sizeof(homing->job), homing->job};
    delivered.runs = runs;
    delivered.instead = homing->fetch->deliver;
    envelope.body_case = WL__ENVELOPE__BODY_DELIVERED;
    envelope.delivered = &delivered;
    return connection_call(homing->westlight, &envelope, WL__ENVELOPE__BODY_DONE, patience_ns,
                           &answer);
}

/* So that the farm need not keep them for long. Nothing fails over it (what a broker that is away
 * does not hear is said again with the next, and else by the next fetch), but a stop that was meant
 * for all of the fetch ends it.
 */
static int acknowledge(struct homing *homing, int64_t patience_ns)
{
    char why[sizeof(homing->westlight->why)];
    int r = 0;

    memcpy(why, homing->westlight->why, sizeof(why));
    sort_runs(homing);
    while (r == 0 && homing->n_runs > 0) {
        size_t n = homing->n_runs < LIMIT_PAGE ? homing->n_runs : LIMIT_PAGE;
        r = say_delivered(homing, n, patience_ns);
        if (r == WESTLIGHT_E_STOPPED)
            return r;
        if (r != 0 && (homing->westlight->refusal == CODE_OK || r == WESTLIGHT_E_BUSY))
            break;
        homing->n_runs -= n; /* heard, and if it was refused then for good */
        memmove(homing->runs, homing->runs + n, homing->n_runs * sizeof(*homing->runs));
        r = 0;
    }
    memcpy(homing->westlight->why, why, sizeof(why));
    return 0;
}

static int home_waiting(struct homing *homing, const struct waiting *waiting)
{
    int r = see_new_frames(homing, waiting);

    for (size_t i = 0, n; r == 0 && i < waiting->n_rows; i += n) {
        n = group(homing, waiting, i);
        r = n > 0 ? home_rows(homing, waiting->rows + i, n) : homing_pass(homing, waiting->rows[i]);
        n += n == 0;
        if (r == 0 && homing->n_runs >= LIMIT_RESULTS_PAGE)
            r = acknowledge(homing, ACKNOWLEDGE_NS);
    }
    int acknowledged = acknowledge(homing, ACKNOWLEDGE_NS); /* also of those before a bad end */
    return acknowledged != 0 ? acknowledged : r;
}

static int fetch_waiting(struct homing *homing, bool *ret_more)
{
    _cleanup_(waiting_freep) struct waiting *waiting = calloc(1, sizeof(*waiting));
    int r = waiting ? list_waiting(homing, waiting) : -ENOMEM;

    if (r == 0)
        r = home_waiting(homing, waiting);
    if (r != 0)
        return r;
    homing->fetch->after = waiting->last;
    homing->n_ended = 0;
    *ret_more = waiting->more;
    return 0;
}

static int fetch_all(struct homing *homing)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more)
        r = fetch_waiting(homing, &more);
    return r;
}

/* ---- until the end ---- */

static bool gave_up(const struct homing *homing)
{
    int64_t patience_ns = homing->fetch->timeout_ms * NS_PER_MS;
    return patience_ns > 0 && clock_monotonic_ns() - homing->progress_ns >= patience_ns;
}

/* A job that paused itself after failures goes on only when a person does something. */
static int stuck(struct homing *homing, const struct westlight_row *row)
{
    if (strcmp(row->phase, "paused") != 0 || row->counts.leased + row->counts.running > 0 ||
        !row->paused_itself)
        return 0;
    return connection_fail(homing->westlight, WESTLIGHT_E_STATE,
                           "job %.8s has paused itself: %s: westlight retry %.8s or westlight "
                           "resume %.8s goes on",
                           homing->id, row->reason, homing->id, homing->id);
}

/* Waits for news of the job and says where it stands. */
static int await_news(struct homing *homing, struct westlight_row *row)
{
    const struct westlight_fetch *fetch = homing->fetch;
    struct westlight_watch *watch = NULL;
    int64_t deadline_ns =
        fetch->timeout_ms > 0 ? homing->progress_ns + fetch->timeout_ms * NS_PER_MS : 0;

    do {
        int r = connection_notice(homing->westlight, deadline_ns, &watch);
        if (r != 0)
            return r;
        if (memcmp(watch->job, homing->job, sizeof(watch->job)) != 0)
            wire_free(TAKE_PTR(watch->notice)); /* of another watch on this connection */
    } while (!watch->notice);
    wire_free(homing->westlight->held);
    homing->westlight->held = TAKE_PTR(watch->notice);
    const Wl__Notice *notice = homing->westlight->held->notice;
    homing->progress_ns = clock_monotonic_ns();
    if (notice->gone || !notice->row)
        return connection_fail(homing->westlight, WESTLIGHT_E_UNKNOWN,
                               "job %s: it is gone from the farm", homing->id);
    int r = look_row(homing->westlight, notice->row, row);
    if (r == 0)
        homing->results_known = row->counts.done;
    return r;
}

static int follow(struct homing *homing, struct westlight_row *row)
{
    for (;;) {
        uint64_t before = homing->fetch->after;
        int r = fetch_all(homing);
        if ((r == WESTLIGHT_E_UNREACHABLE || r == WESTLIGHT_E_TIMEOUT) && !gave_up(homing)) {
            r = connection_sleep(homing->westlight, RETRY_NS);
            if (r != 0)
                return r;
            continue;
        }
        if (r != 0)
            return r;
        if (row->finished &&
            (homing->fetch->after >= row->last_result || homing->fetch->after == before))
            return 0;
        r = stuck(homing, row);
        if (r == 0)
            r = await_news(homing, row);
        if (r != 0)
            return r;
    }
}

static int note_interim(struct homing *homing, const Wl__Show *show)
{
    homing->interim = calloc(show->n_steps + 1, sizeof(*homing->interim));
    if (!homing->interim)
        return -ENOMEM;
    for (; homing->n_interim < show->n_steps; homing->n_interim++)
        homing->interim[homing->n_interim] = show->steps[homing->n_interim]->interim;
    return 0;
}

static int begin(struct homing *homing, struct westlight_row *row)
{
    struct westlight *westlight = homing->westlight;
    struct westlight_watch *watch;

    int r = 0;
    if (homing->fetch->follow) /* before looking, so that nothing falls between */
        r = connection_watch(westlight, homing->job, &watch);
    if (r == 0)
        r = look_show(westlight, homing->job, &westlight->held);
    if (r != 0)
        return r;
    const Wl__Show *show = westlight->held->show;
    r = look_row(westlight, show->row, row);
    homing->submitted_wall_s = show->row->submitted_wall_s;
    homing->delivers = show->own || homing->fetch->deliver;
    if (r == 0 && homing->fetch->follow && !watch->steps)
        r = look_steps_new(show->steps, show->n_steps,
                           &watch->steps); /* westlight_next may come later */
    if (r == 0)
        r = note_interim(homing, show);
    if (r == 0)
        r = recipe_key(westlight, show, homing->id, homing->job_key);
    if (r == 0)
        r = open_recipe(homing, show);
    if (r == 0)
        r = open_folder(homing);
    homing->results_known = row->counts.done;
    return r;
}

/* Blocks that are gone may be those of a job that is: then nothing renders them again. */
static int still_there(struct homing *homing)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    int r = look_show(homing->westlight, homing->job, &answer);

    return r == WESTLIGHT_E_UNKNOWN || r == WESTLIGHT_E_STOPPED ? r : 0;
}

int westlight_fetch(struct westlight *westlight, const char *id, struct westlight_fetch *fetch)
{
    struct homing homing = {
        .westlight = westlight,
        .fetch = fetch,
        .fd = -1,
        .receipts.file = -1,
        .arrivals = {.folder = -1, .file = -1},
        .blocks.westlight = westlight,
        .progress_ns = clock_monotonic_ns(),
    };
    struct westlight_row row;

    homing.reader.blocks = &homing.blocks;
    int r = connection_begin_job(westlight, id, homing.job);
    hex_encode(homing.job, sizeof(homing.job), homing.id);
    if (r == 0)
        r = begin(&homing, &row);
    if (r == 0)
        r = fetch->follow ? follow(&homing, &row) : fetch_all(&homing);
    if (r == 0) /* what was not heard */
        r = acknowledge(&homing, CONNECTION_TIMEOUT_NS);
    /* It would be in the way on a disk that is full. */
    arrivals_close(&homing.arrivals, r == 0 || r == -ENOSPC || r == -EDQUOT);
    if (r == 0 && homing.damaged > 0)
        r = still_there(&homing);
    if (r == 0 && homing.conflicts > 1)
        r = connection_fail(westlight, WESTLIGHT_E_EXISTS, "%s (and %llu more)", homing.conflict,
                            (unsigned long long)homing.conflicts - 1);
    else if (r == 0 && homing.conflicts == 1)
        r = connection_fail(westlight, WESTLIGHT_E_EXISTS, "%s", homing.conflict);
    if (r == 0 && homing.damaged > 1)
        r = connection_fail(westlight, WESTLIGHT_E_CORRUPT, "%s (and %llu more)", homing.damage,
                            (unsigned long long)homing.damaged - 1);
    else if (r == 0 && homing.damaged == 1)
        r = connection_fail(westlight, WESTLIGHT_E_CORRUPT, "%s", homing.damage);
    fetch->bytes_received = blocks_received(&homing.blocks);
    homing_deinit(&homing);
    return r;
}
