/*
 * batch_json.c
 *		Reads what es_append_batch() is given.
 */
#include "eventsrc.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "append/batch.h"
#include "store/arguments.h"

/*
 * es_batch_place names a place in a batch.
 */
const char *
es_batch_place(const EsBatchPlace *place)
{
	if (place->event > 0)
		return psprintf("event %d of entry %d", place->event, place->entry);
	return psprintf("entry %d", place->entry);
}

/*
 * refuse_value raises VE004 for a value of the wrong kind.
 */
static void
refuse_value(const EsBatchPlace *place, const char *key, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_ARGUMENT),
			 errmsg("%s of %s must be %s", key, es_batch_place(place), wanted),
			 place->event > 0 ?
			 errhint("An event is {\"event_type\": \"Placed\", \"data\": {}}; it may have metadata, event_id, occurred_at and schema_version too.") :
			 errhint("An entry is {\"aggregate_type\": \"Order\", \"aggregate_id\": \"1\", \"expected_version\": 0, \"events\": []}.")));
}

/*
 * refuse_shape raises VE004 for what is not an object, or not an array.
 */
static void
refuse_shape(const char *what, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_ARGUMENT),
			 errmsg("%s must be %s", what, wanted),
			 errhint("Pass [{\"aggregate_type\": \"Order\", \"aggregate_id\": \"1\", \"expected_version\": 0, \"events\": [{\"event_type\": \"Placed\", \"data\": {}}]}].")));
}

/*
 * refuse_key raises VE004 for a key that is not known.
 */
static void
refuse_key(const EsBatchPlace *place, const JsonbValue *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_ARGUMENT),
			 errmsg("%s has an unknown key \"%s\"", es_batch_place(place),
					pnstrdup(key->val.string.val, key->val.string.len)),
			 place->event > 0 ?
			 errhint("The keys of an event are event_type, data, metadata, event_id, occurred_at and schema_version.") :
			 errhint("The keys of an entry are aggregate_type, aggregate_id, expected_version and events.")));
}

/*
 * is_key compares a key with a name.
 */
static bool
is_key(const JsonbValue *key, const char *name)
{
	return key->val.string.len == strlen(name) &&
		memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

/*
 * is_container tells whether a value is an object or an array, as wanted.
 */
static bool
is_container(const JsonbValue *value, bool object)
{
	return value->type == jbvBinary &&
		(object ? JsonContainerIsObject(value->val.binary.data) :
		 JsonContainerIsArray(value->val.binary.data));
}

/*
 * read_text reads a text of 1 to max bytes.
 */
static text *
read_text(const JsonbValue *value, const EsBatchPlace *place, const char *key, int max)
{
	text	   *result;

	if (value->type != jbvString)
		refuse_value(place, key, "a string");
	result = cstring_to_text_with_len(value->val.string.val, value->val.string.len);
	if (value->val.string.len == 0 || value->val.string.len > max)
		es_check_text(result, psprintf("%s of %s", key, es_batch_place(place)), max);
	return result;
}

/*
 * read_integer reads an integer of at most 64 bits.
 */
static int64
read_integer(const JsonbValue *value, const EsBatchPlace *place, const char *key)
{
	char	   *digits;
	char	   *end;
	int64		result;

	if (value->type != jbvNumeric)
		refuse_value(place, key, "an integer");
	digits = DatumGetCString(DirectFunctionCall1(numeric_out,
												 NumericGetDatum(value->val.numeric)));
	errno = 0;
	result = strtoll(digits, &end, 10);
	if (errno != 0 || *end != '\0')
		refuse_value(place, key, "an integer");
	return result;
}

/*
 * read_time reads a moment as timestamptz_in() does.
 */
static TimestampTz
read_time(const JsonbValue *value, const EsBatchPlace *place, const char *key)
{
	TimestampTz result = 0;
	bool		good = false;
	char	   *string;
	char	   *fields[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	char		work[MAXDATELEN + MAXDATEFIELDS];
	int			nfields;
	int			kind;
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;

	if (value->type != jbvString)
		refuse_value(place, key, "a string with a time");
	string = pnstrdup(value->val.string.val, value->val.string.len);
	if (ParseDateTime(string, work, sizeof(work), fields, types, MAXDATEFIELDS, &nfields) == 0 &&
		DecodeDateTime(fields, types, nfields, &kind, &tm, &fsec, &tz ES_DATE_TIME_EXTRA) == 0)
	{
		good = true;
		if (kind == DTK_DATE)
			good = tm2timestamp(&tm, fsec, &tz, &result) == 0;
		else if (kind == DTK_EPOCH)
			result = SetEpochTimestamp();
		else if (kind == DTK_LATE)
			TIMESTAMP_NOEND(result);
		else if (kind == DTK_EARLY)
			TIMESTAMP_NOBEGIN(result);
		else
			good = false;
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s of %s is not a time", key, es_batch_place(place)),
				 errdetail("It is \"%s\".", string),
				 errhint("Pass a time such as \"2026-02-28T12:00:00Z\".")));
	return result;
}

/*
 * read_event_key reads one key of an event.
 */
static void
read_event_key(const JsonbValue *key, JsonbValue *value, EsNewEvent *event, const EsBatchPlace *place)
{
	bool		given = (value->type != jbvNull);

	if (is_key(key, "event_type"))
		event->event_type = read_text(value, place, "event_type", ES_MAX_TYPE);
	else if (is_key(key, "data"))
	{
		event->data = JsonbPGetDatum(JsonbValueToJsonb(value));
		if (!given)
			es_check_data(event->data, psprintf(" (%s)", es_batch_place(place)));
	}
	else if (is_key(key, "metadata"))
	{
		event->has_metadata = given;
		if (given)
			event->metadata = JsonbPGetDatum(JsonbValueToJsonb(value));
	}
	else if (is_key(key, "event_id"))
	{
		if (given)
			event->event_id = read_text(value, place, "event_id", ES_MAX_TYPE);
	}
	else if (is_key(key, "occurred_at"))
	{
		event->has_occurred_at = given;
		if (given)
			event->occurred_at = read_time(value, place, "occurred_at");
	}
	else if (is_key(key, "schema_version"))
	{
		int64		version = given ? read_integer(value, place, "schema_version") : 0;

		if ((given && version < 1) || version > PG_INT32_MAX)
			refuse_value(place, "schema_version", "1 or more, and fit an integer");
		event->schema_version = (int32) version;
	}
	else
		refuse_key(place, key);
}

/*
 * read_event reads an event; tells whether its id is the caller's.
 */
static bool
read_event(JsonbValue *object, EsNewEvent *event, const EsBatchPlace *place)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;
	bool		id_given;

	memset(event, 0, sizeof(EsNewEvent));
	event->schema_version = es_schema_version(false, 0);
	if (!is_container(object, true))
		refuse_shape(es_batch_place(place), "an object");
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = value;
		else if (token == WJB_VALUE)
			read_event_key(&key, &value, event, place);
	}

	if (event->event_type == NULL)
		refuse_value(place, "event_type", "given");
	if (event->data == (Datum) 0)
		event->data = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	id_given = (event->event_id != NULL);
	if (!id_given)
		event->event_id = es_uuid_v7();
	return id_given;
}

/*
 * read_events reads an entry's events.
 */
static void
read_events(const JsonbValue *array, EsAppend *append, EsBatchPlace *place)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!is_container(array, false))
		refuse_value(place, "events", "an array");
	append->events = MemoryContextAllocHuge(CurrentMemoryContext,
											Max(JsonContainerSize(array->val.binary.data), 1) *
											sizeof(EsNewEvent));
	append->ids_given = true;
	iterator = JsonbIteratorInit(array->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		place->event = append->nevents + 1;
		if (!read_event(&value, &append->events[append->nevents], place))
			append->ids_given = false;
		append->nevents++;
	}
	place->event = 0;
}

/*
 * read_entry reads an entry of the batch.
 */
static void
read_entry(JsonbValue *object, EsAppend *append, EsBatchPlace *place)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	append->entry = place->entry;
	append->expected = ES_EXPECT_ANY;
	if (!is_container(object, true))
		refuse_shape(es_batch_place(place), "an object");
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = value;
		else if (token != WJB_VALUE)
			continue;
		else if (is_key(&key, "aggregate_type"))
			append->aggregate_type = read_text(&value, place, "aggregate_type", ES_MAX_TYPE);
		else if (is_key(&key, "aggregate_id"))
			append->aggregate_id = read_text(&value, place, "aggregate_id", ES_MAX_ID);
		else if (is_key(&key, "expected_version"))
		{
			if (value.type != jbvNull)
				append->expected = es_expected_version(read_integer(&value, place, "expected_version"),
													   psprintf(" of %s", es_batch_place(place)));
		}
		else if (is_key(&key, "events"))
		{
			if (value.type != jbvNull)
				read_events(&value, append, place);
		}
		else
			refuse_key(place, &key);
	}

	if (append->aggregate_type == NULL)
		refuse_value(place, "aggregate_type", "given");
	if (append->aggregate_id == NULL)
		refuse_value(place, "aggregate_id", "given");
	if (append->nevents == 0 && append->expected == ES_EXPECT_ANY)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s has neither events nor an expected version", es_batch_place(place)),
				 errhint("Give it events to append, or the expected_version that is to be checked.")));
}

/*
 * es_batch_read reads a batch into an array of entries.
 */
EsBatchEntry *
es_batch_read(Jsonb *batch, int *count, EsBatchPlace *place)
{
	EsBatchEntry *entries;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (batch == NULL || !JB_ROOT_IS_ARRAY(batch) || JB_ROOT_IS_SCALAR(batch) ||
		JB_ROOT_COUNT(batch) == 0)
		refuse_shape("batch", "an array with entries");
	entries = MemoryContextAllocExtended(CurrentMemoryContext, JB_ROOT_COUNT(batch) * sizeof(EsBatchEntry),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	iterator = JsonbIteratorInit(&batch->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		read_entry(&value, &entries[place->entry++].append, place);
	}
	*count = place->entry;
	place->entry = 0;
	return entries;
}
