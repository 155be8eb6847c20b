/* catalogue.c - a treap, ordered by studio and job id, level by random rank. So what is another
 * studio's is not on the way to what a studio asks for: whether it is there makes no difference to
 * the answer or to the time.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/bytes.h>
#include <proto/wire.h>
#include <broker/catalogue.h>

int catalogue_init(struct catalogue *catalogue, const struct identity_signer *signer)
{
    *catalogue = (struct catalogue){.signer = signer};
    return map_init(&catalogue->by_id);
}

static void frames_free(struct catalogue_job *entry)
{
    for (size_t i = 0; i < entry->n_frames; i++)
        wl__range__free_unpacked(entry->frames[i], NULL);
    free(entry->frames);
    entry->frames = NULL;
    entry->n_frames = 0;
}

static void entry_free(struct catalogue_job *entry)
{
    frames_free(entry);
    wl__submit__free_unpacked(entry->submit, NULL);
    wipe(entry->key, sizeof entry->key);
    free(entry);
}

void catalogue_deinit(struct catalogue *catalogue)
{
    struct catalogue_job *entry = catalogue->root;

    /* Turns the tree right until the root has no left child: no stack, however deep. */
    while (entry) {
        struct catalogue_job *left = entry->left;

        if (left) {
            entry->left = left->right;
            left->right = entry;
            entry = left;
        } else {
            struct catalogue_job *right = entry->right;

            entry_free(entry);
            entry = right;
        }
    }
    map_deinit(&catalogue->by_id);
    catalogue->root = catalogue->last = NULL;
    catalogue->n_jobs = 0;
}

int catalogue_pack(const struct catalogue *catalogue, struct studio_id studio,
                   const Wl__Submit *submit, void **ret_blob, size_t *ret_size)
{
    uint8_t wrapped[WRAPPED_BYTES];
    Wl__Submit stored = *submit;
    uint8_t *blob;
    int r = job_key_wrap(catalogue->signer, studio.value, submit->job.data, submit->job_key.data,
                         wrapped);

    if (r < 0)
        return r;
    stored.job_key = (ProtobufCBinaryData){sizeof wrapped, wrapped};
    blob = malloc(wl__submit__get_packed_size(&stored));
    if (!blob)
        return -ENOMEM;
    *ret_size = wl__submit__pack(&stored, blob);
    *ret_blob = blob;
    return 0;
}

static int place(struct studio_id studio, const struct job_id *job,
                 const struct catalogue_job *entry)
{
    if (studio.value != entry->studio.value)
        return studio.value < entry->studio.value ? -1 : 1;
    return memcmp(job, &entry->job, sizeof *job);
}

static struct catalogue_job *insert(struct catalogue_job *root, struct catalogue_job *entry)
{
    if (!root)
        return entry;
    if (place(entry->studio, &entry->job, root) < 0) {
        struct catalogue_job *left = root->left = insert(root->left, entry);

        if (left->rank <= root->rank)
            return root;
        root->left = left->right;
        left->right = root;
        return left;
    } else {
        struct catalogue_job *right = root->right = insert(root->right, entry);

        if (right->rank <= root->rank)
            return root;
        root->right = right->left;
        right->left = root;
        return right;
    }
}

/* Spaces live in the core; here they would only be kept twice. */
static void slim(Wl__Submit *submit)
{
    for (size_t i = 0; i < submit->n_steps; i++) {
        Wl__Step *step = submit->steps[i];

        for (size_t j = 0; j < step->n_space; j++)
            wl__space_parameter__free_unpacked(step->space[j], NULL);
        step->n_space = 0;
        free(TAKE_PTR(step->space));
    }
}

int catalogue_add(struct catalogue *catalogue, const struct job_id *job, struct studio_id studio,
                  const void *blob, size_t size, struct catalogue_job **ret_entry)
{
    struct catalogue_job *entry = calloc(1, sizeof *entry);
    int r;

    if (!entry)
        return -ENOMEM;
    r = random_bytes(&entry->rank, sizeof entry->rank);
    if (r < 0) {
        free(entry);
        return r;
    }
    entry->submit = wl__submit__unpack(NULL, size, blob);
    if (!entry->submit || entry->submit->job_key.len != WRAPPED_BYTES || !entry->submit->recipe ||
        entry->submit->recipe->id.len != 32) {
        wl__submit__free_unpacked(entry->submit, NULL);
        free(entry);
        return -EBADMSG;
    }
    slim(entry->submit);
    entry->job = *job;
    entry->studio = studio;
    catalogue->root = insert(catalogue->root, entry);
    map_insert(&catalogue->by_id, map_hash(&catalogue->by_id, job, sizeof *job), &entry->node);
    catalogue->n_jobs++;
    *ret_entry = entry;
    return 0;
}

/* Of two trees, all of the first before all of the second. As deep as the tree is. */
static struct catalogue_job *merge(struct catalogue_job *left, struct catalogue_job *right)
{
    if (!left || !right)
        return left ? left : right;
    if (left->rank > right->rank) {
        left->right = merge(left->right, right);
        return left;
    }
    right->left = merge(left, right->left);
    return right;
}

void catalogue_remove(struct catalogue *catalogue, const struct job_id *job)
{
    struct catalogue_job **at = &catalogue->root, *entry = catalogue_find(catalogue, job);
    int order;

    while ((order = place(entry->studio, job, *at)) != 0)
        at = order < 0 ? &(*at)->left : &(*at)->right;
    *at = merge(entry->left, entry->right);
    map_remove(&catalogue->by_id, &entry->node);
    if (catalogue->last == entry)
        catalogue->last = NULL;
    catalogue->n_jobs--;
    entry_free(entry);
}

static void take_text(char **text, char **from)
{
    char *taken = *from;

    *from = *text;
    *text = taken;
}

/* Leases that were given with the old recipe still read it, so old refs stay. */
static int add_refs(Wl__Submit *submit, Wl__Edit *edit)
{
    ProtobufCBinaryData *refs;

    if (edit->n_refs == 0)
        return 0;
    refs = reallocarray(submit->refs, submit->n_refs + edit->n_refs, sizeof *refs);
    if (!refs)
        return -ENOMEM;
    submit->refs = refs;
    for (size_t i = 0; i < edit->n_refs; i++) {
        refs[submit->n_refs++] = edit->refs[i];
        edit->refs[i] = (ProtobufCBinaryData){0};
    }
    return 0;
}

int catalogue_edit(struct catalogue_job *entry, Wl__Edit *edit)
{
    Wl__Submit *submit = entry->submit;

    if (edit->what & EDIT_NAME)
        take_text(&submit->name, &edit->name);
    if (edit->what & EDIT_NOTE)
        take_text(&submit->note, &edit->note);
    if (edit->what & EDIT_TAGS) {
        char **tags = submit->tags;
        size_t n = submit->n_tags;

        submit->tags = edit->tags;
        submit->n_tags = edit->n_tags;
        edit->tags = tags;
        edit->n_tags = n;
    }
    if (edit->what & EDIT_PRIORITY)
        submit->priority = edit->priority;
    if (edit->what & EDIT_MAX_WORKERS)
        submit->max_workers = edit->max_workers;
    if (!(edit->what & EDIT_FRAMES))
        return 0;
    frames_free(entry);
    entry->n_frames = edit->n_frames;
    entry->frames = TAKE_PTR(edit->frames);
    edit->n_frames = 0;
    if (edit->recipe) {
        wl__block_ref__free_unpacked(submit->recipe, NULL);
        submit->recipe = TAKE_PTR(edit->recipe);
    }
    return add_refs(submit, edit);
}

static bool id_match(const struct map_node *node, const void *key)
{
    return memcmp(&map_entry(node, const struct catalogue_job, node)->job, key,
                  sizeof(struct job_id)) == 0;
}

struct catalogue_job *catalogue_find(struct catalogue *catalogue, const struct job_id *job)
{
    struct map_node *node;

    if (catalogue->last && memcmp(&catalogue->last->job, job, sizeof *job) == 0)
        return catalogue->last;
    node =
        map_find(&catalogue->by_id, map_hash(&catalogue->by_id, job, sizeof *job), id_match, job);
    if (!node)
        return NULL;
    catalogue->last = map_entry(node, struct catalogue_job, node);
    return catalogue->last;
}

struct catalogue_job *catalogue_own(struct catalogue *catalogue, struct studio_id studio,
                                    const struct job_id *job)
{
    struct catalogue_job *at = catalogue->root;
    int order;

    while (at && (order = place(studio, job, at)) != 0)
        at = order < 0 ? at->left : at->right;
    return at;
}

struct prefix_search {
    struct studio_id studio;
    const uint8_t *prefix;
    unsigned nibbles;
    struct job_id *jobs;
    size_t n, max;
};

/* Compares the first digits only. */
static int prefix_order(const struct prefix_search *search, const struct catalogue_job *at)
{
    unsigned whole = search->nibbles / 2;
    int order;

    if (search->studio.value != at->studio.value)
        return search->studio.value < at->studio.value ? -1 : 1;
    order = memcmp(search->prefix, at->job.bytes, whole);
    if (order != 0 || search->nibbles % 2 == 0)
        return order;
    return (search->prefix[whole] >> 4) - (at->job.bytes[whole] >> 4);
}

static void prefix_walk(const struct catalogue_job *at, struct prefix_search *search)
{
    int order;

    if (!at || search->n == search->max)
        return;
    order = prefix_order(search, at);
    if (order <= 0)
        prefix_walk(at->left, search);
    if (order == 0 && search->n < search->max)
        search->jobs[search->n++] = at->job;
    if (order >= 0)
        prefix_walk(at->right, search);
}

/* The next that has jobs; 0: none. */
static struct studio_id studio_after(const struct catalogue *catalogue, struct studio_id studio)
{
    struct studio_id found = {0};

    for (const struct catalogue_job *at = catalogue->root; at;) {
        if (at->studio.value > studio.value)
            found = at->studio;
        at = at->studio.value > studio.value ? at->left : at->right;
    }
    return found;
}

size_t catalogue_prefix(const struct catalogue *catalogue, struct studio_id studio,
                        const uint8_t *prefix, unsigned nibbles, struct job_id *ret_jobs,
                        size_t max)
{
    struct prefix_search search = {
        .studio = studio, .prefix = prefix, .nibbles = nibbles, .jobs = ret_jobs, .max = max};

    if (studio.value) {
        prefix_walk(catalogue->root, &search);
        return search.n;
    }
    while (search.n < max && (search.studio = studio_after(catalogue, search.studio)).value)
        prefix_walk(catalogue->root, &search);
    return search.n;
}

int catalogue_key(struct catalogue *catalogue, struct catalogue_job *entry, const uint8_t **ret_key)
{
    if (!entry->unwrapped) {
        int r = job_key_unwrap(catalogue->signer, entry->studio.value, entry->job.bytes,
                               entry->submit->job_key.data, entry->key);

        if (r != 0)
            return r < 0 ? r : -EBADMSG;
        entry->unwrapped = true;
    }
    *ret_key = entry->key;
    return 0;
}

static int invalid(char *why, size_t why_size, size_t step, const char *reason)
{
    snprintf(why, why_size, "step %zu %s", step + 1, reason);
    return CATALOGUE_E_INVALID;
}

static const char *space_reason(int error)
{
    switch (error) {
    case SPACE_E_LIMIT:
        return "has too many parameters, values or tasks";
    case SPACE_E_LENGTH:
        return "associates parameters of different lengths";
    case SPACE_E_NAME:
        return "has a parameter without a name, or two of one name";
    case SPACE_E_RANGE:
        return "has an empty or overlapping range";
    default:
        return "has a parameter space that is not one";
    }
}

static int step_space(const Wl__Step *step, size_t index, struct step_spec *spec, char *why,
                      size_t why_size)
{
    int r;

    spec->space = calloc(1, sizeof *spec->space);
    if (!spec->space)
        return -ENOMEM;
    space_init(spec->space);
    r = wire_space(step->space, step->n_space, spec->space);
    if (r > 0)
        return invalid(why, why_size, index, space_reason(r));
    return r;
}

static int step_demands(const Wl__Step *step, size_t index, struct step_spec *spec, char *why,
                        size_t why_size)
{
    struct amount *amounts = calloc(step->n_amounts + 1, sizeof *amounts);
    struct attribute *attributes = calloc(step->n_attributes + 1, sizeof *attributes);

    spec->amounts = amounts;
    spec->attributes = attributes;
    if (!amounts || !attributes)
        return -ENOMEM;
    for (size_t i = 0; i < step->n_amounts; i++) {
        if (!step->amounts[i]->name[0] || !isfinite(step->amounts[i]->min) ||
            step->amounts[i]->min < 0)
            return invalid(why, why_size, index, "asks for an amount without a name, or below 0");
        amounts[i] = (struct amount){step->amounts[i]->name, step->amounts[i]->min};
    }
    for (size_t i = 0; i < step->n_attributes; i++) {
        const Wl__Attribute *asked = step->attributes[i];

        if (!asked->name[0])
            return invalid(why, why_size, index, "asks for an attribute without a name");
        attributes[i] = (struct attribute){.name = asked->name,
                                           .any_of = (const char *const *)asked->any_of,
                                           .n_any_of = asked->n_any_of,
                                           .all_of = (const char *const *)asked->all_of,
                                           .n_all_of = asked->n_all_of};
    }
    spec->n_amounts = step->n_amounts;
    spec->n_attributes = step->n_attributes;
    return 0;
}

/* Backward only, so that no circle can be said; and both ends come out even, task by task. */
static int step_dependencies(const Wl__Step *step, size_t index, const struct job_spec *job,
                             struct step_spec *spec, char *why, size_t why_size)
{
    struct dependency *dependencies = calloc(step->n_dependencies + 1, sizeof *dependencies);

    spec->dependencies = dependencies;
    if (!dependencies)
        return -ENOMEM;
    for (size_t i = 0; i < step->n_dependencies; i++) {
        const Wl__Dependency *asked = step->dependencies[i];
        uint64_t before;

        if (asked->step >= index)
            return invalid(why, why_size, index, "depends on itself or on a later step");
        before = space_size(job->steps[asked->step].space);
        if (asked->per > 0 && (before + asked->per - 1) / asked->per != space_size(spec->space))
            return invalid(why, why_size, index,
                           "depends task by task on a step with another number of tasks");
        dependencies[i] = (struct dependency){asked->step, asked->per};
    }
    spec->n_dependencies = step->n_dependencies;
    return 0;
}

int catalogue_spec(const Wl__Submit *submit, struct studio_id studio, struct job_spec *ret_spec,
                   char *why, size_t why_size)
{
    struct job_spec spec = {.studio = studio,
                            .priority = submit->priority,
                            .max_workers = submit->max_workers,
                            .n_steps = submit->n_steps,
                            .name = submit->name};
    int r = 0;

    memcpy(spec.job.bytes, submit->job.data, sizeof spec.job.bytes);
    spec.steps = calloc(submit->n_steps + 1, sizeof *spec.steps);
    if (!spec.steps)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < submit->n_steps; i++) {
        r = step_space(submit->steps[i], i, &spec.steps[i], why, why_size);
        if (r == 0)
            r = step_demands(submit->steps[i], i, &spec.steps[i], why, why_size);
        if (r == 0)
            r = step_dependencies(submit->steps[i], i, &spec, &spec.steps[i], why, why_size);
    }
    if (r != 0) {
        catalogue_spec_deinit(&spec);
        return r;
    }
    *ret_spec = spec;
    return 0;
}

void catalogue_spec_deinit(struct job_spec *spec)
{
    for (size_t i = 0; spec->steps && i < spec->n_steps; i++) {
        struct step_spec *step = &spec->steps[i];

        if (step->space)
            space_deinit(step->space);
        free(step->space);
        free((void *)step->amounts);
        free((void *)step->attributes);
        free((void *)step->dependencies);
    }
    free(spec->steps);
    *spec = (struct job_spec){0};
}

void catalogue_spaces_free(struct space *spaces, size_t n)
{
    for (size_t i = 0; spaces && i < n; i++)
        space_deinit(&spaces[i]);
    free(spaces);
}

int catalogue_spaces(const Wl__Edit *edit, struct space **ret_spaces, char *why, size_t why_size)
{
    struct space *spaces = calloc(edit->n_spaces + 1, sizeof *spaces);
    int r = spaces ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < edit->n_spaces; i++) {
        space_init(&spaces[i]);
        r = wire_space(edit->spaces[i]->space, edit->spaces[i]->n_space, &spaces[i]);
        if (r > 0)
            r = invalid(why, why_size, i, space_reason(r));
    }
    if (r != 0) {
        catalogue_spaces_free(spaces, edit->n_spaces);
        return r;
    }
    *ret_spaces = spaces;
    return 0;
}
