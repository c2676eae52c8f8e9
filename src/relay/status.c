/*
 * status.c
 *		What the relays' workers report, in shared memory.
 *
 * A slot belongs to a relay, not to a worker: it stays when the worker ends,
 * so that the reason remains visible while the next one is awaited.
 */
#include "relay/relay.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define TRANCHE	"eventsrc_relays"

/* what a relay's events a second are counted over, in us */
#define RATE_INTERVAL	(5 * USECS_PER_SEC)

static EsRelayStatus *slots = NULL;
static LWLock *lock = NULL;
static EsRelayStatus *mine = NULL;

static Size shmem_size(void);
static EsRelayStatus *find_slot(int64 relay);
static EsRelayStatus *claim_slot(int64 relay);
static void write_error(EsRelayStatus *slot, const char *error);

/*
 * es_relay_request_shmem asks for the slots (shmem_request_hook).
 */
void
es_relay_request_shmem(void)
{
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/*
 * es_relay_init_shmem sets the slots up (shmem_startup_hook).
 */
void
es_relay_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("eventsrc relays", shmem_size(), &found);
	if (!found)
		memset(slots, 0, shmem_size());
	lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	LWLockRelease(AddinShmemInitLock);
}

/*
 * es_relay_status_attach makes this process the relay's worker; false if all
 * slots are taken.
 */
bool
es_relay_status_attach(int64 relay, int64 position)
{
	LWLockAcquire(lock, LW_EXCLUSIVE);
	mine = claim_slot(relay);
	if (mine != NULL)
	{
		mine->pid = MyProcPid;
		mine->state = ES_RELAY_RUNNING;
		mine->position = position;
		mine->sent = 0;
		mine->rate = 0;
		mine->rate_at = 0;
		mine->rate_sent = 0;
		mine->nudged = false;
		mine->address[0] = '\0';
	}
	LWLockRelease(lock);
	return mine != NULL;
}

/*
 * es_relay_status_detach notes that the worker ends.
 */
void
es_relay_status_detach(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	mine->pid = 0;
	mine->address[0] = '\0';
	if (mine->state == ES_RELAY_RUNNING)
		mine->state = ES_RELAY_WAITING;
	LWLockRelease(lock);
	mine = NULL;
}

/*
 * es_relay_status_state reports the worker's state.
 */
void
es_relay_status_state(EsRelayState state)
{
	LWLockAcquire(lock, LW_EXCLUSIVE);
	mine->state = state;
	LWLockRelease(lock);
}

/*
 * es_relay_status_progress reports how far the worker has come.
 */
void
es_relay_status_progress(int64 position, int64 sent)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(lock, LW_EXCLUSIVE);
	mine->position = position;
	mine->sent = sent;
	if (mine->rate_at == 0 || now - mine->rate_at >= RATE_INTERVAL)
	{
		mine->rate = mine->rate_at == 0 ? 0 :
			(sent - mine->rate_sent) * (double) USECS_PER_SEC / (now - mine->rate_at);
		mine->rate_at = now;
		mine->rate_sent = sent;
	}
	LWLockRelease(lock);
}

/*
 * es_relay_status_rate returns the events a second that a relay's worker sent
 * of late.
 */
double
es_relay_status_rate(const EsRelayStatus *status)
{
	int64		past = GetCurrentTimestamp() - status->rate_at;

	/* a worker that has nothing to do does not report */
	if (status->rate_at == 0 || past >= 2 * RATE_INTERVAL)
		return status->rate_at == 0 ? 0 :
			(status->sent - status->rate_sent) * (double) USECS_PER_SEC / past;
	return status->rate;
}

/*
 * es_relay_status_error reports an error of the worker and what it does about
 * it.
 */
void
es_relay_status_error(EsRelayState state, const char *error)
{
	if (mine == NULL)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	mine->state = state;
	mine->retries++;
	write_error(mine, error);
	LWLockRelease(lock);
}

/*
 * es_relay_status_claim sees to it that a relay has a slot; false if all are
 * taken.
 */
bool
es_relay_status_claim(int64 relay)
{
	bool		claimed;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	claimed = claim_slot(relay) != NULL;
	LWLockRelease(lock);
	return claimed;
}

/*
 * es_relay_status_problem reports why a relay has no worker.
 */
void
es_relay_status_problem(int64 relay, const char *error)
{
	EsRelayStatus *slot;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	slot = find_slot(relay);
	if (slot != NULL && slot->pid == 0 && strcmp(slot->last_error, error) != 0)
	{
		slot->state = ES_RELAY_WAITING;
		write_error(slot, error);
	}
	LWLockRelease(lock);
}

/*
 * es_relay_status_address reports where the broker is.
 */
void
es_relay_status_address(const char *address)
{
	LWLockAcquire(lock, LW_EXCLUSIVE);
	snprintf(mine->address, sizeof(mine->address), "%s", address);
	LWLockRelease(lock);
}

/*
 * es_relay_status_nudged tells, once, that somebody asked for a new attempt.
 */
bool
es_relay_status_nudged(void)
{
	bool		nudged;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	nudged = mine->nudged;
	mine->nudged = false;
	LWLockRelease(lock);
	return nudged;
}

/*
 * es_relay_status_nudge asks a relay's worker not to wait for its next attempt.
 */
void
es_relay_status_nudge(int64 relay)
{
	EsRelayStatus *slot;
	pid_t		pid = 0;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	slot = find_slot(relay);
	if (slot != NULL)
	{
		slot->nudged = true;
		pid = slot->pid;
	}
	LWLockRelease(lock);

	if (pid != 0)
	{
		PGPROC	   *proc = BackendPidGetProc(pid);

		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
}

/*
 * es_relay_status_tell has es_relay_status_told() ask a relay's worker to look
 * at its row; called before that is committed.
 */
void
es_relay_status_tell(int64 relay)
{
	EsRelayStatus *slot;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	slot = find_slot(relay);
	if (slot != NULL)
		slot->told = true;
	LWLockRelease(lock);
}

/*
 * es_relay_status_told wakes a relay's worker if its row was changed.
 */
void
es_relay_status_told(int64 relay)
{
	EsRelayStatus *slot;
	bool		told;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	slot = find_slot(relay);
	told = slot != NULL && slot->told;
	if (told)
		slot->told = false;
	LWLockRelease(lock);
	if (told)
		es_relay_status_nudge(relay);
}

/*
 * es_relay_status_read copies a relay's slot; false if it has none.
 */
bool
es_relay_status_read(int64 relay, EsRelayStatus *status)
{
	EsRelayStatus *slot;

	LWLockAcquire(lock, LW_SHARED);
	slot = find_slot(relay);
	if (slot != NULL)
		*status = *slot;
	LWLockRelease(lock);
	return slot != NULL;
}

/*
 * es_relay_status_ids lists the relays of this database that have slots, as
 * pointers to int64.
 */
List *
es_relay_status_ids(void)
{
	List	   *ids = NIL;
	int64	   *found = palloc(sizeof(int64) * es_setting_max_relays);
	int			n = 0;

	LWLockAcquire(lock, LW_SHARED);
	for (int i = 0; i < es_setting_max_relays; i++)
	{
		if (slots[i].dboid == MyDatabaseId)
			found[n++] = slots[i].relay;
	}
	LWLockRelease(lock);

	for (int i = 0; i < n; i++)
		ids = lappend(ids, &found[i]);
	return ids;
}

/*
 * es_relay_status_release frees the slot of a relay that is no more.
 */
void
es_relay_status_release(int64 relay)
{
	EsRelayStatus *slot;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	slot = find_slot(relay);
	if (slot != NULL && slot->pid == 0)
		memset(slot, 0, sizeof(EsRelayStatus));
	LWLockRelease(lock);
}

/*
 * shmem_size computes the size of the slots.
 */
static Size
shmem_size(void)
{
	return mul_size(es_setting_max_relays, sizeof(EsRelayStatus));
}

/*
 * find_slot returns the slot of a relay of this database, or NULL.
 */
static EsRelayStatus *
find_slot(int64 relay)
{
	for (int i = 0; i < es_setting_max_relays; i++)
	{
		if (slots[i].dboid == MyDatabaseId && slots[i].relay == relay)
			return &slots[i];
	}
	return NULL;
}

/*
 * claim_slot returns the slot of a relay, a new one if need be: a free one, or
 * one that no worker uses (its database may be gone); NULL if there is none.
 */
static EsRelayStatus *
claim_slot(int64 relay)
{
	EsRelayStatus *slot = find_slot(relay);

	for (int i = 0; slot == NULL && i < es_setting_max_relays; i++)
	{
		if (!OidIsValid(slots[i].dboid))
			slot = &slots[i];
	}
	for (int i = 0; slot == NULL && i < es_setting_max_relays; i++)
	{
		if (slots[i].pid == 0 && slots[i].dboid != MyDatabaseId)
			slot = &slots[i];
	}
	if (slot != NULL && (slot->dboid != MyDatabaseId || slot->relay != relay))
	{
		memset(slot, 0, sizeof(EsRelayStatus));
		slot->dboid = MyDatabaseId;
		slot->relay = relay;
	}
	return slot;
}

/*
 * write_error writes an error and the time into a slot.
 */
static void
write_error(EsRelayStatus *slot, const char *error)
{
	snprintf(slot->last_error, sizeof(slot->last_error), "%s", error);
	slot->last_error_at = GetCurrentTimestamp();
}
