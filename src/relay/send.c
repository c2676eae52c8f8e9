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
static void pass_over(EsRun *run, int64 position);
static void reject_event(EsRun *run);

/* how many events are passed over in one transaction */
#define PASSED_MAX	50000

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
	safe = es_run_limit(run, es_position_safe());

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
		PG_TRY();
		{
			send_page(run, safe);
		}
		PG_CATCH();
		{
			reject_event(run);
		}
		PG_END_TRY();
		if (run->broker->type->end_batch != NULL)
			run->broker->type->end_batch(run->broker, run->scanned);
	}
	else
		run->complete = true;
	if (IsTransactionState())
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
	int			passed = 0;

	/* the snapshot must be younger than the safe position */
	PushActiveSnapshot(GetLatestSnapshot());
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(run->relay->owner, security | SECURITY_RESTRICTED_OPERATION);

	/* row security may run the owner's functions: what they set is undone */
	nest_level = NewGUCNestLevel();

	store = es_store_open(NameStr(run->relay->store), AccessShareLock);
	es_store_check_acl(store, ACL_SELECT);
	es_envelope_begin_page(run->envelope, store);
	scan = es_scan_all(store, run->scanned, safe, GetActiveSnapshot(), NULL);
	while ((slot = es_scan_next(scan)) != NULL)
	{
		EsMessage	message;
		MemoryContext before;
		bool		wanted;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(run->event);
		before = MemoryContextSwitchTo(run->event);
		wanted = es_envelope(run->envelope, slot, &message);
		MemoryContextSwitchTo(before);

		if (!wanted)
		{
			pass_over(run, message.position);
			if (++passed >= PASSED_MAX)
				break;
			continue;
		}

		if (!flushed)
		{
			/* a crash must not undo what was sent */
			es_position_make_durable(safe);
			flushed = true;
		}
		if (!es_window_has_room(run->window, message.key_length + message.value_length))
		{
			result = ES_SEND_FULL;
			break;
		}
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
	es_envelope_end_page(run->envelope);

	run->full = result == ES_SEND_FULL && !run->broker->busy;
	run->complete = slot == NULL;
	if (run->complete)
		run->scanned = safe;

	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, security);
	PopActiveSnapshot();
}

/*
 * pass_over goes on behind an event that is not to be sent.
 */
static void
pass_over(EsRun *run, int64 position)
{
	run->scanned = position;
	if (es_window_pending(run->window) == 0 && !run->exactly_once)
		run->window->confirmed = position;
}

/*
 * reject_event takes an error that comes of one event, for which no message can
 * be made, as the broker's refusal of it; other errors are raised again.
 */
static void
reject_event(EsRun *run)
{
	int64		position = es_envelope_failed(run->envelope);
	ErrorData  *error;

	MemoryContextSwitchTo(run->event);
	error = CopyErrorData();
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
			/* nothing that the event is to blame for */
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
		case ERRCODE_TRANSACTION_ROLLBACK:
			position = 0;
	}
	if (position == 0)
		PG_RE_THROW();

	EmitErrorReport();
	FlushErrorState();
	AbortCurrentTransaction();
	if (!run->relay->content->dead_letter)
		es_broker_reject(run->broker, position, "%s", error->message);
	else
		es_run_dead_letter(run, position, error->message);

	/* what a function of the user's left behind is not used again */
	run->catalog_changed = true;
}

/*
 * es_run_dead_letter notes that an event is passed over, and why.
 */
void
es_run_dead_letter(EsRun *run, int64 position, const char *reason)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	es_relay_dead_letter(run->relay, position, reason);
	PopActiveSnapshot();
	CommitTransactionCommand();
	ereport(LOG,
			(errmsg("relay \"%s\" at position " INT64_FORMAT ": the event is a dead letter now: %s",
					NameStr(run->relay->name), position, reason)));
	run->catalog_changed = true;
}
