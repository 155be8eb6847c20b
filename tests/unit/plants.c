/* Bugs planted on purpose: a test that does not fail for its bug proves nothing. Each program is a
 * unit test linked so that one call of the code under test is led here (meson.build); it must fail.
 */
#include <broker/journal.h>
#include <proto/identity.h>

bool __wrap_ticket_valid(const struct identity_signer *signer, const struct lease *lease,
                         const struct link_key *worker, const void *ticket, size_t size);
uint64_t __wrap_journal_mark(const struct journal *journal);

/* Skip the ticket: every lease is taken for one that was given to whoever names it. */
bool __wrap_ticket_valid(const struct identity_signer *signer, const struct lease *lease,
                         const struct link_key *worker, const void *ticket, size_t size)
{
    (void)signer, (void)lease, (void)worker, (void)ticket, (void)size;
    return true;
}

/* Send before the sync: nothing said waits for the records ahead of it. */
uint64_t __wrap_journal_mark(const struct journal *journal)
{
    (void)journal;
    return 0;
}
