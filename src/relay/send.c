/*
 * send.c
 *		From the store to the broker: pages of events, read as the relay's owner.
 */
#include "relay/run.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "read/scan.h"
#include "store/store.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static bool is_careful(EsRun *run);
static void send_page(EsRun *run, int64 safe);

/*
 * es_run_read hands the events that follow to the broker, as far as the window
 * has room.
 */
void
es_run_read(EsRun *run)
{
	int64		safe;

	if (!es_run_has_room(run))
		return;

	StartTransactionCommand();
	run->database = es_database();
	run->moves = pg_atomic_read_u64(&run->database->moves);
	safe = es_position_safe();

	/*
	 * What was appended after a change of the catalogs must not go where the
	 * server no longer points, or the owner no longer may send: the change is
	 * looked at first.
	 */
	AcceptInvalidationMessages();
	if (run->catalog_changed)
		run->complete = false;
	else if (safe > run->scanned)
	{
		send_page(run, safe);
		if (run->broker->type->end_batch != NULL)
			run->broker->type->end_batch(run->broker, run->scanned);
	}
	else
		run->complete = true;
	CommitTransactionCommand();
}

/*
 * es_run_has_room tells whether a page is worth reading: half of the window is
 * free, as pages should be large when there is much to do.
 */
bool
es_run_has_room(EsRun *run)
{
	if (run->broker->busy)
		return false;
	if (is_careful(run))
		return es_window_pending(run->window) == 0;
	return es_window_pending(run->window) <= ES_WINDOW_EVENTS / 2 &&
		run->window->bytes <= ES_WINDOW_BYTES / 2;
}

/*
 * is_careful tells whether events go one by one, so that none can overtake one
 * that is refused: while the broker is known to have refused some, and for the
 * first after connecting, which may have been refused to an earlier worker
 * (unless all that go together arrive together or not at all).
 */
static bool
is_careful(EsRun *run)
{
	return run->window->confirmed < run->refused ||
		(run->window->total == run->first_total && !run->exactly_once);
}

/*
 * send_page reads events up to the safe position, as the relay's owner, and
 * hands them to the broker.
 */
static void
send_page(EsRun *run, int64 safe)
{
	Oid			user;
	int			security;
	int			nest_level;
	EsStore    *store;
	EsScan	   *scan;
	TupleTableSlot *slot;
	EsSendResult result = ES_SEND_OK;
	bool		flushed = false;

	/* the snapshot must be younger than the safe position */
	PushActiveSnapshot(GetLatestSnapshot());
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(run->relay->owner, security | SECURITY_RESTRICTED_OPERATION);

	/* row security may run the owner's functions: what they set is undone */
	nest_level = NewGUCNestLevel();

	store = es_store_open(NameStr(run->relay->store), AccessShareLock);
	es_store_check_acl(store, ACL_SELECT);
	scan = es_scan_all(store, run->scanned, safe, GetActiveSnapshot(), NULL);
	while ((slot = es_scan_next(scan)) != NULL)
	{
		EsMessage	message;
		MemoryContext before;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(run->event);
		before = MemoryContextSwitchTo(run->event);
		es_envelope(slot, run->relay, run->broker->type, &message);
		MemoryContextSwitchTo(before);

		if (!flushed)
		{
			/* a crash must not undo what was sent */
			es_position_make_durable(safe);
			flushed = true;
		}
		if (!es_window_has_room(run->window, message.key_length + message.value_length))
			break;
		result = run->broker->type->send(run->broker, &message);
		if (result != ES_SEND_OK)
			break;
		run->scanned = message.position;
		if (is_careful(run))
		{
			slot = es_scan_next(scan);
			break;
		}
	}
	es_scan_end(scan);

	run->full = result == ES_SEND_FULL && !run->broker->busy;
	run->complete = slot == NULL;
	if (run->complete)
		run->scanned = safe;

	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, security);
	PopActiveSnapshot();
}
