/* cmd_workers.c - the farm's workers, for its operators: listed, drained, cleared, noted, pooled.
 */
#include <client/cmd.h>

#include <stdio.h>
#include <string.h>
#include <client/say.h>
#include <client/show.h>

static const struct tending {
    const char *name;
    enum westlight_tend tend;
    bool texted; /* the last word is a text */
    const char *wants;
} tendings[] = {
    {"drain", WESTLIGHT_DRAIN, false, "drain WORKER..."},
    {"undrain", WESTLIGHT_UNDRAIN, false, "undrain WORKER..."},
    {"clear", WESTLIGHT_CLEAR, false, "clear WORKER..."},
    {"note", WESTLIGHT_NOTE, true, "note WORKER TEXT"},
    {"pool", WESTLIGHT_POOL, true, "pool WORKER NAME"},
};

struct workers_args {
    const char *farm, *note;
    bool json;
    char **words;
    int n_words;
};

static int arg_take(void *user, int id, const char *value)
{
    struct workers_args *args = user;

    if (id == ID_JSON)
        args->json = true;
    else
        *(id == ID_FARM ? &args->farm : &args->note) = value;
    return 0;
}

static int args_read(struct workers_args *args, int argc, char **argv)
{
    int word, r;

    *args = (struct workers_args){0};
    r = cmd_read(argc, argv, arg_take, args, &word);
    if (r)
        return r;
    args->words = argv + word;
    args->n_words = argc - word;
    return 0;
}

struct listing {
    json_t *array;
    size_t n;
};

/* The head comes with the first row: where there is none, a reason stands alone. */
static int worker_print(void *user, const struct westlight_worker *worker)
{
    struct listing *listing = user;

    if (listing->array)
        json_array_append_new(listing->array, show_worker_json(worker));
    else if (listing->n++ == 0)
        show_worker_head();
    if (!listing->array)
        show_worker(worker);
    return 0;
}

static int list(const struct workers_args *args)
{
    struct westlight *westlight = NULL;
    struct listing listing = {0};
    int r = cmd_open(args->farm, &westlight);

    if (r)
        return r;
    listing.array = args->json ? json_array() : NULL;
    r = westlight_workers(westlight, worker_print, &listing);
    if (r) {
        r = complain_library(r, westlight_why(westlight));
        json_decref(listing.array);
    } else {
        if (listing.array)
            show_json(listing.array, false);
        else if (!listing.n)
            say_part("no workers: the operator starts them with westlight-worker\n");
        if (*westlight_trouble(westlight))
            complain("%s", westlight_trouble(westlight));
    }
    westlight_close(westlight);
    return r;
}

static void say_tended(const struct tending *tending, const char *text,
                       const struct westlight_worker *workers, size_t n, bool json)
{
    json_t *array = json ? json_array() : NULL;

    for (size_t i = 0; i < n; i++) {
        const struct westlight_worker *worker = &workers[i];

        if (json)
            json_array_append_new(array, json_pack("{s:o,s:s,s:s,s:i}", "name",
                                                   show_text_json(worker->name), "key", worker->key,
                                                   "state", worker->state, "running",
                                                   (int)worker->running));
        else if (tending->tend == WESTLIGHT_NOTE)
            say_part("worker %s: %s\n", worker->name, *text ? text : "no note");
        else if (tending->tend == WESTLIGHT_POOL)
            say_part("worker %s is in %s%s; what runs is finished\n", worker->name,
                     *text ? "the pool " : "no pool", text);
        else if (tending->tend == WESTLIGHT_DRAIN && worker->running)
            say_part("worker %s is %s: %u running\n", worker->name, worker->state, worker->running);
        else
            say_part("worker %s is %s\n", worker->name, worker->state);
    }
    if (json)
        show_json(json_pack("{s:s,s:o}", "did", tending->name, "workers", array), false);
}

static int tend(const struct workers_args *args, const struct tending *tending)
{
    int n = args->n_words - 1 - tending->texted;
    const char *text = tending->texted ? args->words[args->n_words - 1] : args->note;
    const struct westlight_worker *workers;
    struct westlight *westlight = NULL;
    size_t n_workers;
    int r;

    if (args->note && tending->tend != WESTLIGHT_DRAIN) {
        complain("workers %s: --note goes with drain; westlight workers note says it alone",
                 tending->name);
        return EXIT_USAGE;
    }
    if (n < 1 || (tending->texted && n > 1)) {
        complain("workers %s: write westlight workers %s: see westlight help workers",
                 tending->name, tending->wants);
        return EXIT_USAGE;
    }
    r = cmd_open(args->farm, &westlight);
    if (r)
        return r;
    r = westlight_tend(westlight, tending->tend, (const char *const *)args->words + 1, (size_t)n,
                       text, &workers, &n_workers);
    if (r)
        r = complain_library(r, westlight_why(westlight));
    else
        say_tended(tending, text, workers, n_workers, args->json);
    westlight_close(westlight);
    return r;
}

int cmd_workers(int argc, char **argv)
{
    struct workers_args args;
    int r = args_read(&args, argc, argv);

    if (r)
        return r;
    if (args.n_words == 0 && args.note) {
        complain("workers: --note goes with drain: see westlight help workers");
        return EXIT_USAGE;
    }
    if (args.n_words == 0)
        return list(&args);
    for (size_t i = 0; i < sizeof(tendings) / sizeof(tendings[0]); i++)
        if (strcmp(args.words[0], tendings[i].name) == 0)
            return tend(&args, &tendings[i]);
    complain("workers %s: it is none of drain, undrain, clear, note, pool: see westlight help "
             "workers",
             args.words[0]);
    return EXIT_USAGE;
}
