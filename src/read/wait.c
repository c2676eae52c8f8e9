/*
 * wait.c
 *		es_wait(): sleeps until there is more to read.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "store/arguments.h"
#include "store/news.h"
#include "store/position.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(es_wait);

/*
 * timeout_arg reads the argument "timeout" and returns it in ms; so long that
 * it never ends for 'infinity'.
 */
static double
timeout_arg(FunctionCallInfo fcinfo, int argno)
{
	Interval   *timeout;
	double		days;
	double		ms;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("timeout must not be NULL"),
				 errhint("Leave it out for 30 seconds.")));
	timeout = PG_GETARG_INTERVAL_P(argno);
	days = (double) timeout->month * DAYS_PER_MONTH + timeout->day;
	ms = days * SECS_PER_DAY * 1000.0 + timeout->time / 1000.0;
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("timeout must not be negative"),
				 errdetail("It is %.0f ms.", ms),
				 errhint("Pass '0' to return at once.")));
	return ms;
}

/*
 * es_wait(after_position, timeout, store) returns the safe position as soon as
 * it exceeds after_position, or as it is when the timeout is over.
 */
Datum
es_wait(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	double		timeout;
	int64		after;
	int64		safe;
	EsStore    *store;

	if (PG_ARGISNULL(0) || PG_GETARG_INT64(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("after_position must not be %s", PG_ARGISNULL(0) ? "NULL" : "negative"),
				 PG_ARGISNULL(0) ? 0 :
				 errdetail("It is %lld.", (long long) PG_GETARG_INT64(0)),
				 errhint("Pass the position up to which you have read; 0 if you have read nothing.")));
	after = PG_GETARG_INT64(0);
	timeout = timeout_arg(fcinfo, 1);

	/* a sleeper's lock would stop who alters the table, and those behind him */
	store = es_store_open(es_store_name_arg(fcinfo, 2), AccessShareLock);
	UnlockRelationOid(store->events, AccessShareLock);

	if (es_position_appending())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for events in a transaction that has appended some"),
				 errdetail("The safe position cannot pass the transaction's own events before it ends."),
				 errhint("Commit first.")));

	if (wait_event == 0)
		wait_event = es_wait_event_new("EventsrcWait");
	safe = es_news_wait(after, timeout, wait_event);
	if (es_setting_read_durable == ES_DURABLE_LOCAL)
		es_position_make_durable(safe);
	PG_RETURN_INT64(safe);
}
