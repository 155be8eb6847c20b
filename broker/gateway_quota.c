/* gateway_quota.c - who has used its quota up (quota.h): its submissions are refused here, its
 * inputs at the bulk endpoint, and from a quarter more on the core leases nothing of it.
 *
 * The operator's word, and what lies in the vault, are looked at ten times a second, since a farm
 * fills a quota fast. Whatever grants a lease comes by here first, so that nothing is leased by a
 * word that is older. After a start nobody knows yet what a studio has: one with a quota waits
 * until the vault is counted, because what it would render meanwhile may have no room.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <broker/gateway.h>
#include <broker/quota.h>

#define LOOK_NS (100 * NS_PER_MS)

bool gateway_past_quota(struct gateway *gateway, const Wl__Submit *submit)
{
    const struct key_row *row = &gateway->ask.peer->row;
    uint64_t used = vault_used_bytes(gateway->with.vault, row->studio);
    char why[QUOTA_WHY_BYTES];
    struct job_id job;

    memcpy(job.bytes, submit->job.data, sizeof job.bytes);
    if (!quota_exceeded(used, row->quota_bytes, QUOTA_INPUTS) || gateway_seen(gateway, &job) ||
        gateway_remembers(gateway, &submit->request_id))
        return false;
    gateway_refuse(gateway, CODE_QUOTA, "the submission", quota_why(used, row->quota_bytes, why),
                   QUOTA_NEXT);
    return true;
}

/* What `why` says of a studio that waits for room. */
const char *gateway_quota_why(struct gateway *gateway, struct studio_id studio)
{
    uint64_t quota = studio.value < gateway->n_quotas ? gateway->quotas[studio.value].bytes : 0;

    if (!vault_counted(gateway->with.vault))
        return "what the studio has of its quota is being counted, as after each start of the "
               "broker";
    return quota_why(vault_used_bytes(gateway->with.vault, studio), quota,
                     gateway_scratch(gateway, QUOTA_WHY_BYTES));
}

static int on_quota(void *user, const struct studio_row *row)
{
    struct gateway *gateway = user;
    size_t id = row->studio.value;

    if (id == 0 || id > LIMIT_STUDIOS)
        return 0;
    if (id >= gateway->n_quotas) {
        size_t larger = id + 64;
        struct studio_quota *moved = reallocarray(gateway->quotas, larger, sizeof *moved);

        if (!moved)
            gateway_die("memory", -ENOMEM);
        memset(moved + gateway->n_quotas, 0, (larger - gateway->n_quotas) * sizeof *moved);
        gateway->quotas = moved;
        gateway->n_quotas = larger;
    }
    gateway->quotas[id].bytes = row->quota_bytes;
    gateway->quotas[id].read_ns = gateway->quotas_ns;
    return 0;
}

/* What cannot be read stays as it was. */
static void read_quotas(struct gateway *gateway)
{
    uint64_t version = roster_version(&gateway->roster, gateway->now_ns, LOOK_NS);

    if (gateway->n_quotas && gateway->quotas_version == version)
        return;
    if (store_quotas(gateway->with.registry, on_quota, gateway) != 0) {
        log_limited(LOG_ERROR, "registry", "why=\"%s\"", store_reader_why(gateway->with.registry));
        return;
    }
    for (size_t id = 0; id < gateway->n_quotas; id++)
        if (gateway->quotas[id].read_ns != gateway->quotas_ns)
            gateway->quotas[id].bytes = 0; /* it has none any more */
    gateway->quotas_version = version;
}

static void look_at(struct gateway *gateway, uint32_t id)
{
    struct studio_quota *quota = &gateway->quotas[id];
    struct event event = {.kind = EVENT_QUOTA, .quota.studio = {id}};
    uint64_t used = vault_used_bytes(gateway->with.vault, event.quota.studio);
    bool counted = vault_counted(gateway->with.vault);
    bool held = quota->bytes > 0 && (!counted || quota_exceeded(used, quota->bytes, QUOTA_LEASES));
    char why[QUOTA_WHY_BYTES];

    if (held == quota->held)
        return;
    quota->held = event.quota.used_up = held;
    gateway->n_held += held ? 1 : (size_t)-1;
    if (held && !counted)
        log_info("quota", "studio=%u state=counting", id);
    else if (held)
        log_limited(LOG_WARN, "quota",
                    "studio=%u state=used_up why=\"%s\" next=\"nothing of it is leased until "
                    "there is room: westlight-broker studio\"",
                    id, quota_why(used, quota->bytes, why));
    else
        log_limited(LOG_INFO, "quota", "studio=%u state=enough", id);
    gateway_step(gateway, &event);
    gateway_scratch_free(gateway);
}

void gateway_quotas(struct gateway *gateway)
{
    if (gateway->quotas_ns && gateway->now_ns - gateway->quotas_ns < LOOK_NS)
        return;
    gateway->quotas_ns = gateway->now_ns;
    read_quotas(gateway);
    for (uint32_t id = 0; id < gateway->n_quotas; id++)
        if (gateway->quotas[id].bytes || gateway->quotas[id].held)
            look_at(gateway, id);
}
