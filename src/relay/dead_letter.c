/*
 * dead_letter.c
 *		Events that a relay could not send, and went on without.
 *
 * They are noted in eventsrc.relay_dead_letters before the relay goes on, and
 * its worker passes over those that are noted there.  To send one once more, a
 * relay is made for that one event, which is gone when it has succeeded.
 */
#include "relay/envelope.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(es_retry_dead_letter);
PG_FUNCTION_INFO_V1(es_discard_dead_letter);

static int64 letter_argument(FunctionCallInfo fcinfo, const EsRelay *relay);
static Jsonb *without_dead_letters(Jsonb *options);

/*
 * es_relay_dead_letter notes that an event cannot be sent, and why.  If it is
 * noted already, what could not be sent is the notice to the topic of dead
 * letters, and the relay goes on without that, too.  Needs a transaction.
 */
void
es_relay_dead_letter(const EsRelay *relay, int64 position, const char *reason)
{
	Oid			types[] = {INT8OID, INT8OID, TEXTOID};
	Datum		values[3];
	char	   *query;

	values[0] = Int64GetDatum(relay->id);
	values[1] = Int64GetDatum(position);
	values[2] = CStringGetTextDatum(reason);
	query = psprintf("INSERT INTO eventsrc.relay_dead_letters AS d (relay, position, event_id, reason)"
					 " VALUES ($1, $2, coalesce((SELECT event_id FROM %s.events WHERE global_position = $2), ''), $3)"
					 " ON CONFLICT (relay, position) DO UPDATE SET skip = true,"
					 " reason = d.reason || '; dead letter topic: ' || excluded.reason",
					 quote_identifier(NameStr(relay->store)));
	SPI_connect();
	es_relay_execute(query, 3, types, values, false);
	SPI_finish();
}

/*
 * es_dead_letter_delete forgets a dead letter; false if there is none.
 */
bool
es_dead_letter_delete(int64 relay, int64 position)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(relay), Int64GetDatum(position)};
	bool		found;

	SPI_connect();
	found = es_relay_execute("DELETE FROM eventsrc.relay_dead_letters WHERE relay = $1 AND position = $2",
							 2, types, values, false) > 0;
	SPI_finish();
	return found;
}

/*
 * es_dead_letters_load reads a relay's dead letters after a position, by
 * position, and returns how many there are.
 */
int
es_dead_letters_load(int64 relay, int64 after, EsDeadLetter **letters)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(relay), Int64GetDatum(after)};
	MemoryContext context = CurrentMemoryContext;
	int			count;

	SPI_connect();
	count = es_relay_execute("SELECT position, skip, reason FROM eventsrc.relay_dead_letters"
							 " WHERE relay = $1 AND position > $2 ORDER BY position",
							 2, types, values, true);
	*letters = MemoryContextAlloc(context, sizeof(EsDeadLetter) * (count + 1));
	for (int i = 0; i < count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		char	   *reason = TextDatumGetCString(SPI_getbinval(row, desc, 3, &isnull));

		(*letters)[i].position = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		(*letters)[i].skip = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
		(*letters)[i].reason = MemoryContextStrdup(context, reason);
	}
	SPI_finish();
	return count;
}

/*
 * es_retry_dead_letter sends an event once more that a relay could not send.
 */
Datum
es_retry_dead_letter(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_retry_dead_letter()");
	int64		position = letter_argument(fcinfo, relay);
	const EsBrokerType *type = es_relay_check_server(NameStr(relay->server));
	char	   *suffix = psprintf(" retry " INT64_FORMAT, position);
	char	   *name = NameStr(relay->name);
	int			length = pg_mbcliplen(name, strlen(name), NAMEDATALEN - 1 - strlen(suffix));
	EsRelay    *before;

	relay->retry_of = relay->id;
	relay->position = position - 1;
	relay->to_position = position;
	namestrcpy(&relay->name, psprintf("%.*s%s", length, name, suffix));
	relay->options = without_dead_letters(relay->options);
	relay->content = es_content_parse(&relay->options, type, true);

	/* an attempt that stopped is begun anew */
	before = es_relay_find(NameStr(relay->name));
	if (before != NULL && before->retry_of == relay->retry_of)
		es_relay_delete(before->id);
	es_relay_add(relay);
	PG_RETURN_VOID();
}

/*
 * es_discard_dead_letter forgets an event that a relay could not send.
 */
Datum
es_discard_dead_letter(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_discard_dead_letter()");

	(void) es_dead_letter_delete(relay->id, letter_argument(fcinfo, relay));
	PG_RETURN_VOID();
}

/*
 * letter_argument returns the position that the second argument names, at which
 * the relay has a dead letter.
 */
static int64
letter_argument(FunctionCallInfo fcinfo, const EsRelay *relay)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[2];
	bool		found;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("position must not be null"),
				 errhint("The view es_dead_letters lists the positions.")));
	values[0] = Int64GetDatum(relay->id);
	values[1] = PG_GETARG_DATUM(1);
	SPI_connect();
	found = es_relay_execute("SELECT FROM eventsrc.relay_dead_letters WHERE relay = $1 AND position = $2",
							 2, types, values, false) > 0;
	SPI_finish();
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" has no dead letter at position " INT64_FORMAT,
						NameStr(relay->name), PG_GETARG_INT64(1)),
				 errhint("The view es_dead_letters lists them.")));
	return PG_GETARG_INT64(1);
}

/*
 * without_dead_letters takes the options away that say what to do with events
 * that cannot be sent (who asks for a new attempt wants to see it fail), and
 * how many lanes there are: one event needs one.
 */
static Jsonb *
without_dead_letters(Jsonb *options)
{
	const char *names[] = {"on_error", "dead_letter_topic", "lanes"};
	Datum		result = JsonbPGetDatum(options);

	for (int i = 0; i < lengthof(names); i++)
		result = DirectFunctionCall2(jsonb_delete, result, CStringGetTextDatum(names[i]));
	return DatumGetJsonbP(result);
}
