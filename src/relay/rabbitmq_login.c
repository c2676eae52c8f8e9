/*
 * rabbitmq_login.c
 *		From a connected socket to a channel that confirms what is published.
 */
#include "relay/rabbitmq.h"

#include "mb/pg_wchar.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

static bool log_in(EsRabbitLink *link, const EsRabbitOptions *options, TimestampTz deadline, int *heartbeat);
static bool start_connection(EsRabbitLink *link, const EsRabbitOptions *options,
							 TimestampTz deadline);
static bool answer_start(EsRabbitLink *link, const EsRabbitOptions *options,
						 const amqp_connection_start_t *start);
static bool tune_connection(EsRabbitLink *link, const EsRabbitOptions *options,
							TimestampTz deadline, int *heartbeat);
static bool open_connection(EsRabbitLink *link, const EsRabbitOptions *options,
							TimestampTz deadline);
static bool open_channel(EsRabbitLink *link, TimestampTz deadline);
static bool declare_queue(EsRabbitLink *link, const EsRabbitOptions *options,
						  const EsRabbitQueue *queue, TimestampTz deadline);
static void *call(EsRabbitLink *link, int channel, amqp_method_number_t method, void *decoded,
				  amqp_method_number_t reply, TimestampTz deadline);
static void *await_method(EsRabbitLink *link, amqp_method_number_t method, TimestampTz deadline);
static amqp_table_entry_t text_entry(const char *name, const char *value);
static amqp_table_entry_t true_entry(const char *name);
static bool has_word(amqp_bytes_t words, const char *word);

/*
 * es_rabbitmq_connect connects to a host and logs in; on failure NULL and an
 * error.
 */
EsRabbitLink *
es_rabbitmq_connect(MemoryContext context, const EsRabbitOptions *options, const char *host,
					int *heartbeat, char *error, size_t error_size)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   options->connect_timeout * 1000L);
	EsRabbitLink *link = es_rabbitmq_link_open(context, options, host, deadline, error, error_size);

	if (link == NULL || log_in(link, options, deadline, heartbeat))
		return link;
	snprintf(error, error_size, "%s", link->error);
	es_rabbitmq_link_close(link);
	return NULL;
}

/*
 * es_rabbitmq_declare_exchange declares a durable exchange: with a deadline it
 * awaits the answer, with 0 a refusal arrives as the end of the channel.
 * Exchanges that every broker has are not declared.
 */
bool
es_rabbitmq_declare_exchange(EsRabbitLink *link, const EsRabbitOptions *options,
							 amqp_bytes_t exchange, TimestampTz deadline)
{
	amqp_exchange_declare_t declare = {0};

	if (exchange.len == 0 || (exchange.len >= 4 && memcmp(exchange.bytes, "amq.", 4) == 0))
		return true;
	declare.exchange = exchange;
	declare.type = amqp_cstring_bytes(options->exchange_type);
	declare.durable = 1;
	declare.nowait = deadline == 0;
	if (deadline == 0)
		return es_rabbitmq_put_method(link, ES_RABBITMQ_CHANNEL, AMQP_EXCHANGE_DECLARE_METHOD, &declare);
	return call(link, ES_RABBITMQ_CHANNEL, AMQP_EXCHANGE_DECLARE_METHOD, &declare,
				AMQP_EXCHANGE_DECLARE_OK_METHOD, deadline) != NULL;
}

/*
 * es_rabbitmq_closed_error writes down why the broker closes the connection or
 * the channel, with what helps.
 */
void
es_rabbitmq_closed_error(EsRabbitLink *link, const amqp_frame_t *frame)
{
	/* both methods have the same fields */
	const amqp_channel_close_t *close = frame->payload.method.decoded;
	const char *advice = "";

	if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD && close->reply_code == AMQP_NOT_FOUND)
		advice = " (make the exchange, or set the server's option \"declare\")";
	else if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD &&
			 close->reply_code == AMQP_PRECONDITION_FAILED &&
			 close->method_id != (AMQP_BASIC_PUBLISH_METHOD & 0xffff))
		advice = " (it exists with other properties: set the server's option \"declare\" to \"none\", or the options to what it is)";
	es_rabbitmq_link_error(link, "the broker closed the %s: %d %.*s%s",
						   frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD ? "channel" : "connection",
						   close->reply_code, (int) close->reply_text.len,
						   (char *) close->reply_text.bytes, advice);
}

/*
 * log_in logs in, opens the channel, declares what the options say
 * and asks for confirmations; on failure the link has an error.
 */
static bool
log_in(EsRabbitLink *link, const EsRabbitOptions *options, TimestampTz deadline, int *heartbeat)
{
	amqp_confirm_select_t confirm = {0};
	ListCell   *cell;

	if (!start_connection(link, options, deadline) ||
		!tune_connection(link, options, deadline, heartbeat) ||
		!open_connection(link, options, deadline) ||
		!open_channel(link, deadline))
		return false;
	if (options->declare_exchange &&
		!es_rabbitmq_declare_exchange(link, options, amqp_cstring_bytes(options->exchange), deadline))
		return false;
	foreach(cell, options->queues)
	{
		if (!declare_queue(link, options, lfirst(cell), deadline))
			return false;
	}
	return call(link, ES_RABBITMQ_CHANNEL, AMQP_CONFIRM_SELECT_METHOD, &confirm,
				AMQP_CONFIRM_SELECT_OK_METHOD, deadline) != NULL;
}

/*
 * start_connection greets the broker and sends the credentials.
 */
static bool
start_connection(EsRabbitLink *link, const EsRabbitOptions *options, TimestampTz deadline)
{
	amqp_connection_start_t *start;

	es_rabbitmq_put_header(link);
	start = await_method(link, AMQP_CONNECTION_START_METHOD, deadline);
	if (start == NULL)
		return false;
	if (start->version_major != 0 || start->version_minor != 9)
	{
		es_rabbitmq_link_error(link, "the broker speaks AMQP %d-%d, not 0-9-1",
							   start->version_major, start->version_minor);
		return false;
	}
	if (!has_word(start->mechanisms, "PLAIN"))
	{
		es_rabbitmq_link_error(link, "the broker does not take users and passwords, but only: %.*s",
							   (int) start->mechanisms.len, (char *) start->mechanisms.bytes);
		return false;
	}
	return answer_start(link, options, start);
}

/*
 * answer_start sends who we are and what we understand: among it, that the
 * broker may tell us when it is blocked and why it does not let us in.
 */
static bool
answer_start(EsRabbitLink *link, const EsRabbitOptions *options,
			 const amqp_connection_start_t *start)
{
	amqp_table_entry_t capabilities[] = {
		true_entry("publisher_confirms"),
		true_entry("connection.blocked"),
		true_entry("basic.nack"),
		true_entry("authentication_failure_close"),
	};
	amqp_table_entry_t properties[] = {
		text_entry("product", "eventsrc"),
		text_entry("platform", "PostgreSQL " PG_VERSION),
		text_entry("connection_name", "eventsrc relay"),
		{amqp_cstring_bytes("capabilities"), {.kind = AMQP_FIELD_KIND_TABLE}},
	};
	amqp_connection_start_ok_t answer = {0};
	int			length;
	char	   *user = pg_server_to_any(unconstify(char *, options->user),
										strlen(options->user), PG_UTF8);
	char	   *password = pg_server_to_any(unconstify(char *, options->password),
											strlen(options->password), PG_UTF8);
	StringInfoData response;
	bool		ok;

	properties[3].value.value.table.entries = capabilities;
	properties[3].value.value.table.num_entries = lengthof(capabilities);

	initStringInfo(&response);
	appendStringInfoChar(&response, '\0');
	appendStringInfoString(&response, user);
	appendStringInfoChar(&response, '\0');
	appendStringInfoString(&response, password);
	length = response.len;

	answer.client_properties.entries = properties;
	answer.client_properties.num_entries = lengthof(properties);
	answer.mechanism = amqp_cstring_bytes("PLAIN");
	answer.response.bytes = response.data;
	answer.response.len = length;
	answer.locale = amqp_cstring_bytes("en_US");
	ok = es_rabbitmq_put_method(link, 0, AMQP_CONNECTION_START_OK_METHOD, &answer);

	explicit_bzero(response.data, length);
	pfree(response.data);
	return ok;
}

/*
 * tune_connection agrees with the broker on the size of frames and the
 * heartbeat.
 */
static bool
tune_connection(EsRabbitLink *link, const EsRabbitOptions *options, TimestampTz deadline,
				int *heartbeat)
{
	amqp_connection_tune_t *tune = await_method(link, AMQP_CONNECTION_TUNE_METHOD, deadline);
	amqp_connection_tune_ok_t answer = {0};

	if (tune == NULL)
		return false;
	if (tune->frame_max != 0)
		link->frame_max = Min(link->frame_max, tune->frame_max);
	*heartbeat = tune->heartbeat != 0 ? Min(options->heartbeat, tune->heartbeat) : options->heartbeat;
	link->channel_max = ES_RABBITMQ_FENCE_CHANNEL;
	if (tune->channel_max != 0)
		link->channel_max = Min(link->channel_max, tune->channel_max);
	if (amqp_tune_connection(link->decoder, link->channel_max, link->frame_max, 0) != AMQP_STATUS_OK)
	{
		es_rabbitmq_link_error(link, "out of memory");
		return false;
	}
	answer.channel_max = link->channel_max;
	answer.frame_max = link->frame_max;
	answer.heartbeat = *heartbeat;
	return es_rabbitmq_put_method(link, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &answer);
}

/*
 * open_connection chooses the virtual host.
 */
static bool
open_connection(EsRabbitLink *link, const EsRabbitOptions *options, TimestampTz deadline)
{
	amqp_connection_open_t open = {0};

	open.virtual_host = amqp_cstring_bytes(options->vhost);
	return call(link, 0, AMQP_CONNECTION_OPEN_METHOD, &open,
				AMQP_CONNECTION_OPEN_OK_METHOD, deadline) != NULL;
}

/*
 * open_channel opens the only channel.
 */
static bool
open_channel(EsRabbitLink *link, TimestampTz deadline)
{
	amqp_channel_open_t open = {0};

	return call(link, ES_RABBITMQ_CHANNEL, AMQP_CHANNEL_OPEN_METHOD, &open,
				AMQP_CHANNEL_OPEN_OK_METHOD, deadline) != NULL;
}

/*
 * declare_queue declares a durable queue and binds it to the exchange; to the
 * default exchange every queue is bound by its name.
 */
static bool
declare_queue(EsRabbitLink *link, const EsRabbitOptions *options, const EsRabbitQueue *queue,
			  TimestampTz deadline)
{
	amqp_table_entry_t arguments[] = {text_entry("x-queue-type", options->queue_type)};
	amqp_queue_declare_t declare = {0};
	amqp_queue_bind_t bind = {0};

	declare.queue = amqp_cstring_bytes(queue->name);
	declare.durable = 1;
	declare.arguments.entries = arguments;
	declare.arguments.num_entries = lengthof(arguments);
	if (call(link, ES_RABBITMQ_CHANNEL, AMQP_QUEUE_DECLARE_METHOD, &declare,
			 AMQP_QUEUE_DECLARE_OK_METHOD, deadline) == NULL)
		return false;
	if (options->exchange[0] == '\0')
		return true;

	bind.queue = declare.queue;
	bind.exchange = amqp_cstring_bytes(options->exchange);
	bind.routing_key = amqp_cstring_bytes(queue->binding_key);
	return call(link, ES_RABBITMQ_CHANNEL, AMQP_QUEUE_BIND_METHOD, &bind,
				AMQP_QUEUE_BIND_OK_METHOD, deadline) != NULL;
}

/*
 * call sends a method and returns the reply, or NULL and the link has an error.
 */
static void *
call(EsRabbitLink *link, int channel, amqp_method_number_t method, void *decoded,
	 amqp_method_number_t reply, TimestampTz deadline)
{
	if (!es_rabbitmq_put_method(link, channel, method, decoded))
		return NULL;
	return await_method(link, reply, deadline);
}

/*
 * await_method writes what is to be written and waits for a method, which lives
 * until the next frame is read; on failure NULL, and the link has an error.
 */
static void *
await_method(EsRabbitLink *link, amqp_method_number_t method, TimestampTz deadline)
{
	for (;;)
	{
		amqp_frame_t frame;
		int			got;
		char		error[ES_BROKER_TEXT] = "";

		if (!es_rabbitmq_flush(link))
			return NULL;
		got = es_rabbitmq_read_frame(link, &frame);
		if (got < 0)
			return NULL;
		if (got > 0)
		{
			if (frame.frame_type != AMQP_FRAME_METHOD)
				continue;
			if (frame.payload.method.id == method)
				return frame.payload.method.decoded;
			if (frame.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD ||
				frame.payload.method.id == AMQP_CONNECTION_CLOSE_METHOD)
			{
				es_rabbitmq_closed_error(link, &frame);
				return NULL;
			}
			continue;
		}
		if (!es_rabbitmq_wait(link->socket,
							  WL_SOCKET_READABLE |
							  (es_rabbitmq_wants_write(link) ? WL_SOCKET_WRITEABLE : 0),
							  deadline, error, sizeof(error)))
		{
			es_rabbitmq_link_error(link, "%s", error[0] != '\0' ? error :
								   "the broker does not answer in time");
			return NULL;
		}
	}
}

/*
 * text_entry makes a table's entry with a text.
 */
static amqp_table_entry_t
text_entry(const char *name, const char *value)
{
	amqp_table_entry_t entry = {amqp_cstring_bytes(name), {.kind = AMQP_FIELD_KIND_UTF8}};

	entry.value.value.bytes = amqp_cstring_bytes(value);
	return entry;
}

/*
 * true_entry makes a table's entry that says yes.
 */
static amqp_table_entry_t
true_entry(const char *name)
{
	amqp_table_entry_t entry = {amqp_cstring_bytes(name), {.kind = AMQP_FIELD_KIND_BOOLEAN}};

	entry.value.value.boolean = 1;
	return entry;
}

/*
 * has_word tells whether a list that is separated by spaces has a word.
 */
static bool
has_word(amqp_bytes_t words, const char *word)
{
	const char *p = words.bytes;
	const char *end = p + words.len;

	while (p < end)
	{
		const char *space = memchr(p, ' ', end - p);
		size_t		length = (space ? space : end) - p;

		if (length == strlen(word) && memcmp(p, word, length) == 0)
			return true;
		p += length + 1;
	}
	return false;
}
