/*
 * close.c
 *		es_close_stream(): an event that ends a stream.
 *
 * The mark in "streams" is what closes it; the event says so to readers, and
 * its type tells appends when to look at the mark.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "store/arguments.h"

PG_FUNCTION_INFO_V1(es_close_stream);

/*
 * reason_data makes the data of the closing event; without a reason it is
 * empty.
 */
static Datum
reason_data(text *reason)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (reason)
	{
		value.type = jbvString;
		value.val.string.val = "reason";
		value.val.string.len = strlen("reason");
		(void) pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = VARDATA_ANY(reason);
		value.val.string.len = VARSIZE_ANY_EXHDR(reason);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/*
 * es_close_stream(aggregate_type, aggregate_id, reason, expected_version, store)
 * appends an event of type StreamClosed and marks the stream closed: appends to
 * it are refused from then on.
 *
 * Errors: VE005 if there is no such stream, VE015 if it is closed already, and
 * those of es_append().
 */
Datum
es_close_stream(PG_FUNCTION_ARGS)
{
	EsAppend	append = {0};
	EsNewEvent	event = {0};
	EsStreamHead head;
	uint64		hash;

	es_check_writable("es_close_stream()");
	append.aggregate_type = es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE);
	append.aggregate_id = es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID);
	append.expected = PG_ARGISNULL(3) ? ES_EXPECT_ANY : es_expected_version(PG_GETARG_INT64(3), "");
	append.store = es_store_open(es_store_name_arg(fcinfo, 4), RowExclusiveLock);
	append.nevents = 1;
	append.events = &event;
	event.event_type = cstring_to_text(ES_CLOSING_TYPE);
	event.data = reason_data(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	event.event_id = es_uuid_v7();
	event.schema_version = es_schema_version(false, 0);

	es_store_check_acl(append.store, ACL_INSERT);
	hash = es_stream_lock(append.store, append.aggregate_type, append.aggregate_id);
	es_stream_head(append.store, append.aggregate_type, append.aggregate_id, hash,
				   append.expected, GetCurrentTimestamp(), &head);
	if (head.version == 0 && append.expected <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NO_SUCH_VERSION),
				 errmsg("stream %s %s of store \"%s\" does not exist",
						text_to_cstring(append.aggregate_type),
						text_to_cstring(append.aggregate_id), NameStr(append.store->name)),
				 errhint("Only a stream that has events can be closed; check its type, id and store.")));
	es_check_expected(&append, &head);

	/* first the mark, so that it holds for triggers that the event fires */
	es_stream_close(append.store, append.aggregate_type, append.aggregate_id);
	append.closes = true;
	es_append_run(&append);
	PG_RETURN_DATUM(es_append_result(&append));
}
