/*
 * progress.c
 *		Where a relay goes on, if the broker keeps account of it.
 *
 * What the broker recorded together with the events is the truth; the position
 * in eventsrc.relays is a copy for views.  Only a position that a user set
 * since (a higher epoch) wins.  If the record cannot be of this store's past,
 * the relay stops: the store was restored from a backup, or the broker is not
 * the one that this relay sent to.
 */
#include "relay/run.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "read/scan.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

static void adopt_position(EsRun *run, const EsProgress *progress);
static void check_divergence(EsRun *run, const EsProgress *progress);
static char *event_id_at(const char *store_name, int64 position);
static void stop(EsRun *run, const char *format,...) pg_attribute_printf(2, 3);

/*
 * es_run_position asks the broker where to go on; does not wait.
 */
void
es_run_position(EsRun *run)
{
	EsProgress	progress;

	switch (run->broker->type->last_position(run->broker, &progress))
	{
		case ES_PROGRESS_UNKNOWN:
			break;
		case ES_PROGRESS_NONE:
			run->positioned = true;
			break;
		case ES_PROGRESS_FOUND:
			adopt_position(run, &progress);
			break;
	}
}

/*
 * es_run_rewind begins anew after what is confirmed: the rest was undone.
 */
void
es_run_rewind(EsRun *run)
{
	run->broker->rewound = false;
	run->refused = Max(run->refused, run->broker->refused);
	es_window_reset(run->window, run->window->confirmed);
	run->scanned = run->window->confirmed;
	run->complete = run->full = false;
}

/*
 * adopt_position goes on from the broker's record of the relay's progress,
 * unless that is void or cannot be true.
 */
static void
adopt_position(EsRun *run, const EsProgress *progress)
{
	if (progress->epoch < run->epoch)
	{
		run->positioned = true;
		return;
	}
	check_divergence(run, progress);
	if (run->stop[0] != '\0')
		return;

	es_window_reset(run->window, progress->position);
	run->scanned = progress->position;
	run->positioned = true;
}

/*
 * check_divergence has the relay stop if the record of its progress does not
 * fit this store.
 */
static void
check_divergence(EsRun *run, const EsProgress *progress)
{
	const char *store = NameStr(run->relay->store);
	int64		safe;
	char	   *event_id = NULL;

	StartTransactionCommand();
	safe = es_position_safe();
	PushActiveSnapshot(GetLatestSnapshot());
	if (progress->event_position > 0 && progress->position <= safe)
		event_id = event_id_at(store, progress->event_position);

	if (progress->epoch > run->epoch)
		stop(run, "the broker has a record of the relay's position " INT64_FORMAT
			 " that was set later than that of this database",
			 progress->position);
	else if (progress->position > safe)
		stop(run, "the broker has events up to position " INT64_FORMAT
			 ", but store \"%s\" ends at " INT64_FORMAT,
			 progress->position, store, safe);
	else if (progress->event_position > 0 && event_id == NULL)
		stop(run, "the last event that the broker has is \"%s\" at position " INT64_FORMAT
			 ", but store \"%s\" has none there",
			 progress->event_id, progress->event_position, store);
	else if (progress->event_position > 0 && strcmp(event_id, progress->event_id) != 0)
		stop(run, "at position " INT64_FORMAT " the broker has event \"%s\", but store \"%s\" has \"%s\"",
			 progress->event_position, progress->event_id, store, event_id);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * event_id_at returns the id of the event at a position, as a progress record
 * has it, or NULL if there is none.  Row security does not matter here.
 */
static char *
event_id_at(const char *store_name, int64 position)
{
	EsStore    *store = es_store_open(store_name, AccessShareLock);
	EsScan	   *scan = es_scan_all_direct(store, position - 1, position,
										  GetActiveSnapshot(), NULL);
	TupleTableSlot *slot = es_scan_next(scan);
	char	   *id = NULL;

	if (slot != NULL)
	{
		bool		isnull;
		char	   *own = TextDatumGetCString(slot_getattr(slot, ES_ATT_EVENT_ID, &isnull));

		id = pg_server_to_any(own, strlen(own), PG_UTF8);
		id = pnstrdup(id, Min(strlen(id), ES_PROGRESS_ID));
	}
	es_scan_end(scan);
	return id;
}

/*
 * stop notes why the relay cannot go on by itself.
 */
static void
stop(EsRun *run, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(run->stop, sizeof(run->stop), format, args);
	va_end(args);
	run->stop_hint = "The store was restored from a backup, or this is another broker. "
		"Find out which, then choose with es_seek_relay() where the relay is to go on.";
}
