/* stock.c - see stock.h. */
#include <stdlib.h>
#include <string.h>
#include <broker/vault/stock.h>

struct stock_studio {
    uint32_t studio;
    uint64_t folders[256], bytes; /* the sum */
    int64_t coming;
};

void stock_init(struct stock *stock)
{
    *stock = (struct stock){0};
    pthread_mutex_init(&stock->lock, NULL);
    pthread_mutex_init(&stock->numbers, NULL);
}

void stock_deinit(struct stock *stock)
{
    for (size_t i = 0; i < stock->n_studios; i++)
        free(stock->studios[i]);
    free(stock->studios);
    pthread_mutex_destroy(&stock->lock);
    pthread_mutex_destroy(&stock->numbers);
}

/* The first that is not before it. */
static size_t place_of(const struct stock *stock, struct studio_id studio)
{
    size_t low = 0, high = stock->n_studios;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (stock->studios[middle]->studio < studio.value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct stock_studio *find(const struct stock *stock, struct studio_id studio)
{
    size_t at = place_of(stock, studio);

    return at < stock->n_studios && stock->studios[at]->studio == studio.value ? stock->studios[at]
                                                                               : NULL;
}

static struct stock_studio *get(struct stock *stock, struct studio_id studio)
{
    struct stock_studio *found = find(stock, studio), **grown;

    if (found)
        return found;
    grown = reallocarray(stock->studios, stock->n_studios + 1, sizeof *grown);
    if (!grown)
        return NULL;
    stock->studios = grown;
    found = calloc(1, sizeof *found);
    if (!found)
        return NULL;
    found->studio = studio.value;
    size_t at = place_of(stock, studio);
    memmove(grown + at + 1, grown + at, (stock->n_studios++ - at) * sizeof *grown);
    return grown[at] = found;
}

void stock_set(struct stock *stock, struct studio_id studio, uint8_t folder, uint64_t bytes)
{
    pthread_mutex_lock(&stock->numbers);
    struct stock_studio *of = get(stock, studio);

    if (of) {
        of->bytes += bytes - of->folders[folder];
        of->folders[folder] = bytes;
    }
    pthread_mutex_unlock(&stock->numbers);
}

/* What is taken away before it was counted was never added. */
void stock_change(struct stock *stock, struct studio_id studio, uint8_t folder, int64_t bytes)
{
    pthread_mutex_lock(&stock->numbers);
    const struct stock_studio *of = find(stock, studio);
    uint64_t now = of ? of->folders[folder] : 0;
    pthread_mutex_unlock(&stock->numbers);

    if (bytes < 0 && now < (uint64_t)-bytes)
        stock_set(stock, studio, folder, 0);
    else
        stock_set(stock, studio, folder, now + (uint64_t)bytes);
}

void stock_coming(struct stock *stock, struct studio_id studio, int64_t bytes)
{
    pthread_mutex_lock(&stock->numbers);
    struct stock_studio *of = get(stock, studio);

    if (of)
        of->coming += bytes;
    pthread_mutex_unlock(&stock->numbers);
}

uint64_t stock_bytes(struct stock *stock, struct studio_id studio)
{
    pthread_mutex_lock(&stock->numbers);
    const struct stock_studio *of = find(stock, studio);
    uint64_t bytes = of ? of->bytes + (uint64_t)of->coming : 0;
    pthread_mutex_unlock(&stock->numbers);
    return bytes;
}
