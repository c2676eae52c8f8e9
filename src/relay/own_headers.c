/*
 * own_headers.c
 *		The names that the headers of a relay's options may not have.
 *
 * A message with two headers of a name says one thing to some consumers and
 * another to others.  So the names that the envelope itself writes are taken,
 * and with RabbitMQ those that mean something to the relay or to the broker.
 */
#include "relay/envelope.h"

/* as envelope.c writes them */
static const char *const plain_headers[] =
{
	"event-id", "event-type", "schema-version", "aggregate-type", "version", "position", "store",
	"correlation-id", "causation-id", "traceparent", "metadata", "occurred-at", NULL
};
static const char *const debezium_headers[] =
{
	"id", "eventType", "aggregateType", "traceparent", NULL
};
static const char *const cloudevents_headers[] =
{
	"content-type", NULL
};

/* by "position" a returned message is known; CC and BCC are routing keys */
static const char *const rabbitmq_headers[] =
{
	"position", "key", "CC", "BCC", NULL
};

static bool is_taken(const EsContent *content, const EsBrokerType *type, const char *name);
static const char *const *written_headers(EsEnvelopeKind envelope);
static bool is_among(const char *const *names, const char *name);

/*
 * es_own_headers_check raises an error if a header of a relay's options has a
 * name that is taken, with its envelope and type of broker.
 */
void
es_own_headers_check(const EsContent *content, const EsBrokerType *type)
{
	for (int i = 0; i < content->nheaders; i++)
	{
		const char *name = content->header_names[i];

		if (is_taken(content, type, name))
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_RELAY),
					 errmsg("header \"%.200s\" is reserved", name),
					 is_among(rabbitmq_headers, name) && type == &es_rabbitmq_broker ?
					 errdetail("It means something to relays to RabbitMQ, or to RabbitMQ itself.") :
					 errdetail("The relay's envelope has a header of that name."),
					 errhint("Choose another name, for example \"x-%.200s\".", name)));
	}
}

/*
 * is_taken tells whether the messages of such a relay have a header of that
 * name by themselves.
 */
static bool
is_taken(const EsContent *content, const EsBrokerType *type, const char *name)
{
	if (type == &es_rabbitmq_broker && is_among(rabbitmq_headers, name))
		return true;
	if (content->envelope == ES_ENVELOPE_CLOUDEVENTS_BINARY && es_cloudevent_has_header(name))
		return true;
	return is_among(written_headers(content->envelope), name);
}

/*
 * written_headers returns the names of the headers that an envelope writes, but
 * for the attributes of CloudEvents.
 */
static const char *const *
written_headers(EsEnvelopeKind envelope)
{
	switch (envelope)
	{
		case ES_ENVELOPE_EVENTSRC:
		case ES_ENVELOPE_RAW:
			return plain_headers;
		case ES_ENVELOPE_DEBEZIUM:
			return debezium_headers;
		case ES_ENVELOPE_CLOUDEVENTS:
		case ES_ENVELOPE_CLOUDEVENTS_BINARY:
			break;
	}
	return cloudevents_headers;
}

/*
 * is_among tells whether a name is one of several.
 */
static bool
is_among(const char *const *names, const char *name)
{
	for (; *names != NULL; names++)
	{
		if (strcmp(*names, name) == 0)
			return true;
	}
	return false;
}
