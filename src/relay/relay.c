/*
 * relay.c
 *		The worker of a relay: the connection to the broker, and how it goes on.
 *
 * The store is the queue.  The worker reads a page of events in a transaction
 * of its own, hands them to the broker, and has nothing open while it waits for
 * the confirmations.  What is confirmed moves the relay's position.  When
 * anything fails, the connection is given up with all that is unconfirmed, and
 * after a pause the events are read again from the position, so that the order
 * of a stream's events is kept: at least once.
 */
#include "relay/run.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define SAVE_MS			200		/* how often a busy relay stores its position */
#define STALL_MS		10000	/* without any confirmation, something is
								 * wrong */
#define REJECT_MS		5000	/* the same before an event that is refused */
#define LEAVE_MS		1000	/* how long confirmations are awaited at the
								 * end */

static EsRun run;

PGDLLEXPORT void es_relay_main(Datum main_arg);

static void work(void);
static bool connect_broker(void);
static bool wants_exactly_once(void);
static void reload_relay(void);
static void report_broker(void);
static bool is_stalled(void);
static bool is_finished(void);
static void finish(void);
static void give_up(void);
static void reject_event(void);
static void leave_orderly(void);
static void close_broker(void);
static void leave_at_exit(int code, Datum arg);
static void note_catalog_change(Datum arg, int cacheid, uint32 hash);
static void note_relation_change(Datum arg, Oid relation);

/*
 * es_relay_main is the entry point of a relay's worker.
 */
void
es_relay_main(Datum main_arg)
{
	int64		key = es_worker_begin(main_arg, "relay");

	run.id = es_lane_relay(key);
	run.lane = es_lane_number(key);
	if (run.lane > 0)
		pgstat_report_appname(psprintf("eventsrc relay " INT64_FORMAT ", lane %d, in database %u",
									   run.id, run.lane, MyDatabaseId));
	before_shmem_exit(leave_at_exit, (Datum) 0);
	es_memory_begin();

	/* a lost update of the position only sends some events again */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);

	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, note_catalog_change, (Datum) 0);
	CacheRegisterRelcacheCallback(note_relation_change, (Datum) 0);

	run.window = es_window_create();
	run.context = AllocSetContextCreate(TopMemoryContext, "eventsrc relay", ALLOCSET_SMALL_SIZES);
	run.event = AllocSetContextCreate(TopMemoryContext, "eventsrc relayed event", ALLOCSET_DEFAULT_SIZES);
	run.pause_ms = ES_RUN_PAUSE_MS;
	es_run_name_waits();

	if (!es_relay_status_attach(key, 0))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no free slot for a relay"),
				 errhint("Increase eventsrc.max_relays.")));

	/* an error ends this worker; the reason remains in es_relays */
	PG_TRY();
	{
		work();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		AbortOutOfAnyTransaction();
		es_relay_status_error(ES_RELAY_RETRYING, error->message);
		PG_RE_THROW();
	}
	PG_END_TRY();

	proc_exit(0);
}

/*
 * es_relay_title names the relay of this process and where it stands.
 */
const char *
es_relay_title(void)
{
	static char title[NAMEDATALEN + 96];

	if (run.relay == NULL)
		return "relay";
	snprintf(title, sizeof(title), "relay %s at position " INT64_FORMAT,
			 run.relay->label, run.window->confirmed);
	return title;
}

/*
 * work relays until the worker is to leave.
 */
static void
work(void)
{
	while (!es_run_is_leaving(&run))
	{
		if (run.broker == NULL && !connect_broker())
		{
			if (!run.leave)
				es_run_pause(&run);
			continue;
		}

		if (run.positioned)
			es_run_read(&run);
		run.broker->type->poll(run.broker);
		if (!run.positioned)
			es_run_position(&run);
		report_broker();
		if (run.broker->fenced)
		{
			strlcpy(run.stop, run.broker->error, sizeof(run.stop));
			run.stop_hint = run.broker->fenced_hint ? run.broker->fenced_hint :
				"If this server is the one that is to send, call es_seek_relay() here with the position to go on from.";
		}
		if (run.stop[0] != '\0')
		{
			give_up();
			es_run_wait_for_people(&run);
			continue;
		}
		if (run.broker->rejected > 0)
		{
			reject_event();
			continue;
		}
		if (run.broker->failed)
		{
			give_up();
			es_run_pause(&run);
			continue;
		}
		if (run.broker->rewound)
		{
			es_run_rewind(&run);
			if (run.rewound_total == run.window->total)
				es_run_pause(&run);
			run.rewound_total = run.window->total;
		}
		if (is_finished())
		{
			finish();
			break;
		}
		es_run_save(&run, false);
		if (!run.catalog_changed)
			es_run_turn(&run);
		if (run.catalog_changed)
			reload_relay();
		else
			es_run_wait_for_work(&run);
	}
	leave_orderly();
}

/*
 * connect_broker loads the relay and opens its broker; false if that is not
 * possible now, or the worker is to leave.
 */
static bool
connect_broker(void)
{
	char		error[ES_BROKER_TEXT] = "";
	EsSender	sender = {0};

	if (!es_run_load(&run))
		return false;

	run.wanted = wants_exactly_once();
	run.epoch = run.relay->epoch;
	sender.system_identifier = GetSystemIdentifier();
	sender.database = MyDatabaseId;
	sender.relay = run.id;
	sender.lane = run.lane;
	sender.relay_name = NameStr(run.relay->name);
	sender.timeline = GetWALInsertionTimeLine();
	sender.epoch = run.relay->epoch;
	sender.position = run.relay->position;
	sender.exactly_once = run.wanted;
	sender.ends = run.relay->to_position > 0;
	run.broker = run.type->open(run.options, &sender, run.window, error, sizeof(error));
	if (run.broker == NULL)
	{
		run.retrying = true;
		es_relay_status_error(ES_RELAY_RETRYING, error);
		return false;
	}
	es_window_reset(run.window, run.relay->position);
	run.scanned = run.saved = run.relay->position;
	run.saved_at = GetCurrentTimestamp();
	run.complete = run.full = false;
	run.exactly_once = run.broker->type->last_position != NULL;
	run.positioned = !run.exactly_once;
	run.rewound_total = -1;
	run.errors = 0;
	run.moved_at = run.saved_at;
	run.first_total = run.window->total;
	es_relay_status_address(run.broker->address);
	es_relay_status_progress(run.relay->position, run.window->total);

	/* after a failure it shows as retrying until something is confirmed */
	if (!run.retrying)
		es_relay_status_state(ES_RELAY_RUNNING);
	return true;
}

/*
 * es_run_load reads the relay's row and the options of its server, and tells
 * whether it can run.
 */
bool
es_run_load(EsRun *run)
{
	char	   *problem = NULL;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextReset(run->context);
	run->options = NIL;
	run->catalog_changed = false;

	run->table = get_relname_relid("relays", es_private_schema());
	run->relay = es_relay_load(run->id, run->lane, run->context);
	if (run->relay == NULL || !es_relay_runnable(run->relay))
		run->leave = true;
	else if ((problem = es_relay_problem(run->relay)) != NULL)
	{
		run->retrying = true;
		es_relay_status_error(ES_RELAY_STOPPED, problem);
	}
	else
	{
		List	   *options;
		MemoryContext before;

		run->type = es_relay_options(run->relay, &options);
		before = MemoryContextSwitchTo(run->context);
		run->options = copyObject(options);
		run->envelope = es_envelope_create(run->relay, run->type);
		MemoryContextSwitchTo(before);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();

	return !run->leave && problem == NULL;
}

/*
 * wants_exactly_once tells whether the relay is to deliver exactly once and the
 * broker can.
 */
static bool
wants_exactly_once(void)
{
	return run.type->exactly_once &&
		strcmp(run.relay->delivery, "exactly_once") == 0;
}

/*
 * reload_relay looks at the catalogs again after they changed; if the relay
 * cannot go on, or not as it was connected, or elsewhere in its store, the
 * broker is closed.
 */
static void
reload_relay(void)
{
	List	   *before;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "eventsrc relay before",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);

	before = copyObject(run.options);
	MemoryContextSwitchTo(outer);
	if (!es_run_load(&run) || !equal(before, run.options) ||
		run.epoch != run.relay->epoch || run.wanted != wants_exactly_once())
	{
		run.broker->type->flush(run.broker, LEAVE_MS);
		es_run_save(&run, true);
		close_broker();
	}
	MemoryContextDelete(context);
}

/*
 * report_broker shows progress and errors in es_relays.
 */
static void
report_broker(void)
{
	EsBroker   *broker = run.broker;
	int64		position = run.window->confirmed;

	/*
	 * shown, but not stored: a copy of the database may use it for other
	 * events
	 */
	if (run.positioned && es_window_pending(run.window) == 0 && run.complete && !broker->failed)
		position = run.scanned;

	if (is_stalled() && !run.retrying)
		es_broker_error(broker, "the broker has confirmed nothing for %d s", STALL_MS / 1000);

	if (broker->errors != run.errors)
	{
		run.errors = broker->errors;
		run.retrying = true;
		run.failed_total = run.window->total;
		es_relay_status_error(ES_RELAY_RETRYING, broker->error);
		ereport(LOG,
				(errmsg("relay %s at position " INT64_FORMAT ": %s",
						run.relay->label, run.window->confirmed, broker->error)));
	}
	else if (run.retrying && !broker->troubled && !broker->failed && !run.awaits_standby &&
			 (run.window->total > run.failed_total ||
			  (es_window_pending(run.window) == 0 && run.complete)))
	{
		run.retrying = false;
		run.pause_ms = ES_RUN_PAUSE_MS;
		es_relay_status_state(ES_RELAY_RUNNING);
	}
	es_relay_status_progress(position, run.window->total);
}

/*
 * is_stalled tells whether confirmations are awaited in vain: a broker that
 * hangs gives no error for long.
 */
static bool
is_stalled(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (es_window_pending(run.window) == 0 || run.window->total != run.moved_total)
	{
		run.moved_at = now;
		run.moved_total = run.window->total;
	}
	return TimestampDifferenceExceeds(run.moved_at, now, STALL_MS);
}

/*
 * es_run_save stores how far the relay has come: now, or if it is time.
 */
void
es_run_save(EsRun *run, bool now)
{
	bool		found;

	if (!run->positioned || run->window->confirmed <= run->saved)
		return;
	if (!now && !TimestampDifferenceExceeds(run->saved_at, GetCurrentTimestamp(), SAVE_MS))
		return;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	found = es_relay_save_position(run->id, run->lane, run->epoch, run->window->confirmed);
	PopActiveSnapshot();
	CommitTransactionCommand();

	run->saved = run->window->confirmed;
	run->saved_at = GetCurrentTimestamp();
	if (!found)
		run->catalog_changed = true;
}

/*
 * is_finished tells whether a lane of a relay that is to end has sent
 * everything.
 */
static bool
is_finished(void)
{
	return run.relay->to_position > 0 && !es_lanes_change(run.relay) && run.positioned &&
		run.scanned >= run.relay->to_position && es_window_pending(run.window) == 0;
}

/*
 * finish notes that the relay has come to its end.
 */
static void
finish(void)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	es_relay_finish(run.relay);
	PopActiveSnapshot();
	CommitTransactionCommand();
	ereport(LOG,
			(errmsg("relay %s has sent everything up to position " INT64_FORMAT,
					run.relay->label, run.relay->to_position)));
	run.saved = run.window->confirmed;
	run.leave = true;
}

/*
 * give_up closes the broker after a failure; what is confirmed stays so.
 */
static void
give_up(void)
{
	run.retrying = true;
	run.refused = Max(run.refused, run.broker->refused);
	es_relay_status_progress(run.window->confirmed, run.window->total);
	es_run_save(&run, true);
	close_broker();
}

/*
 * reject_event deals with an event that the broker refuses for good: the relay
 * goes on without it if it has dead letters, else it stops before it.
 */
static void
reject_event(void)
{
	if (!run.broker->failed)
		run.broker->type->flush(run.broker, REJECT_MS);
	if (run.relay->content->dead_letter)
	{
		es_run_dead_letter(&run, run.broker->rejected, run.broker->reject_reason);
		give_up();
		return;
	}
	snprintf(run.stop, sizeof(run.stop), "event at position " INT64_FORMAT " is refused: %s",
			 run.broker->rejected, run.broker->reject_reason);
	run.stop_hint = "Put right what refuses it (or pass over it with es_seek_relay()), then call es_resume_relay(); a relay with on_error dead_letter goes on by itself.";
	give_up();
	es_run_wait_for_people(&run);
}

/*
 * leave_orderly gives the broker a moment to confirm what it was sent, so that
 * it need not be sent again, and stores the position unless somebody is
 * dropping the table.
 */
static void
leave_orderly(void)
{
	Oid			schema;
	Oid			table;

	if (run.broker == NULL)
		return;
	if (es_window_pending(run.window) > 0)
		run.broker->type->flush(run.broker, LEAVE_MS);
	if (run.positioned && run.window->confirmed > run.saved)
	{
		StartTransactionCommand();
		schema = LookupExplicitNamespace(ES_PRIVATE_SCHEMA, true);
		table = OidIsValid(schema) ?
			get_relname_relid(run.lane == 0 ? "relays" : "relay_lanes", schema) : InvalidOid;
		if (OidIsValid(table) && ConditionalLockRelationOid(table, RowExclusiveLock))
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			(void) es_relay_save_position(run.id, run.lane, run.epoch, run.window->confirmed);
			PopActiveSnapshot();
		}
		CommitTransactionCommand();
	}
	close_broker();
}

/*
 * close_broker ends the connection and forgets what is unconfirmed.
 */
static void
close_broker(void)
{
	EsBroker   *broker = run.broker;

	run.broker = NULL;
	if (broker != NULL)
		broker->type->close(broker);
	es_window_reset(run.window, run.window->confirmed);
}

/*
 * leave_at_exit ends the broker's threads before the process ends, however it
 * does, and notes that the relay has no worker.
 */
static void
leave_at_exit(int code, Datum arg)
{
	EsBroker   *broker = run.broker;

	run.broker = NULL;
	if (broker != NULL)
		broker->type->close(broker);
	es_relay_status_detach();
}

/*
 * note_catalog_change remembers that a server, a user mapping, a schema or a
 * role changed.
 */
static void
note_catalog_change(Datum arg, int cacheid, uint32 hash)
{
	run.catalog_changed = true;
}

/*
 * note_relation_change does so when the table of relays changed: who alters a
 * relay's row invalidates it.
 */
static void
note_relation_change(Datum arg, Oid relation)
{
	if (relation == run.table || !OidIsValid(relation))
		run.catalog_changed = true;
}
