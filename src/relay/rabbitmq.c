/*
 * rabbitmq.c
 *		RabbitMQ as a broker: publisher confirms, at least once.
 *
 * One connection, one channel, no thread: the relay's loop calls poll(), which
 * writes what the socket takes and reads what is there.  Every event is
 * persistent and mandatory, and counts as arrived when the broker confirms it,
 * which it does once all queues have it on disk.  What it returns, refuses or
 * does not confirm is sent again, from the first such event on.
 *
 * A message that no queue takes comes back, while those behind it arrive: they
 * would overtake it.  So the first event with an exchange and routing key that
 * were not seen on this connection is awaited before others follow.
 */
#include "relay/relay.h"

#include <poll.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "relay/rabbitmq.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define OUT_FLUSH		(32 * 1024) /* what is written at once, about */
#define OUT_MOST		(512 * 1024)	/* unwritten beyond this, nothing more
										 * is taken */
#define VALUE_MOST		(512 * 1024 * 1024) /* no RabbitMQ takes larger ones */
#define ROUTES_MOST		4096	/* beyond, new routes are not awaited */
#define GOODBYE_MS		200		/* how long the end is negotiated */

typedef struct EsRabbit
{
	EsBroker	base;
	MemoryContext context;
	EsRabbitOptions *options;
	EsRabbitLink *link;
	EsRabbitFence fence;
	int			heartbeat;		/* seconds */
	uint64		first;			/* sequence number of delivery tag 1 */
	HTAB	   *routes;			/* hashes of topics that took an event */
	bool		awaiting;		/* the event "awaited" is to be confirmed
								 * first */
	uint64		awaited;		/* its sequence number */
	uint64		awaited_route;
	bool		draining;		/* all that was sent is to be confirmed first */
	bool		returning;		/* a returned message's properties are next */
	bool		returned;		/* the event "returned_sequence" came back */
	uint64		returned_sequence;
	char		return_reason[ES_BROKER_TEXT];
} EsRabbit;

static EsBroker *rabbit_open(List *options, const EsSender *sender, EsWindow *window,
							 char *error, size_t error_size);
static EsSendResult rabbit_send(EsBroker *broker, const EsMessage *message);
static void rabbit_poll(EsBroker *broker);
static void rabbit_flush(EsBroker *broker, int timeout_ms);
static void rabbit_probe(EsBroker *broker, int timeout_ms);
static void rabbit_close(EsBroker *broker);

static bool has_room(EsRabbit *rabbit);
static EsSendResult refuse_message(EsRabbit *rabbit, const EsMessage *message, const char *reason);
static void read_frames(EsRabbit *rabbit);
static void take_method(EsRabbit *rabbit, const amqp_frame_t *frame);
static void take_fence(EsRabbit *rabbit, const amqp_frame_t *frame);
static void take_ack(EsRabbit *rabbit, const amqp_basic_ack_t *ack);
static void take_nack(EsRabbit *rabbit, const amqp_basic_nack_t *nack);
static void begin_return(EsRabbit *rabbit, const amqp_basic_return_t *returned);
static void take_return(EsRabbit *rabbit, const amqp_basic_properties_t *properties);
static void take_close(EsRabbit *rabbit, const amqp_frame_t *frame);
static void pass_confirmed(EsRabbit *rabbit);
static void keep_alive(EsRabbit *rabbit);
static void note_failure(EsRabbit *rabbit);
static void wait_a_little(EsRabbit *rabbit, TimestampTz until);

const EsBrokerType es_rabbitmq_broker = {
	.name = "rabbitmq",
	.check_option = es_rabbitmq_check_option,
	.check_server = es_rabbitmq_check_server,
	.check_topic = es_rabbitmq_check_topic,
	.topic_value = es_rabbitmq_topic_value,
	.topic_end = es_rabbitmq_topic_end,
	.open = rabbit_open,
	.send = rabbit_send,
	.poll = rabbit_poll,
	.flush = rabbit_flush,
	.probe = rabbit_probe,
	.close = rabbit_close,
};

/*
 * rabbit_open connects to one of the hosts that the options name, each time
 * beginning with another.
 */
static EsBroker *
rabbit_open(List *options, const EsSender *sender, EsWindow *window,
			char *error, size_t error_size)
{
	static int	turn = 0;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "eventsrc rabbitmq",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	EsRabbit   *rabbit = palloc0(sizeof(EsRabbit));
	HASHCTL		control = {0};
	int			hosts;

	rabbit->base.type = &es_rabbitmq_broker;
	rabbit->base.window = window;
	rabbit->base.wake = PGINVALID_SOCKET;
	rabbit->context = context;
	/* the relay's own are gone when it looks at the catalogs again */
	rabbit->options = es_rabbitmq_options(copyObject(options));
	rabbit->first = window->next;
	control.keysize = control.entrysize = sizeof(uint64);
	control.hcxt = context;
	rabbit->routes = hash_create("eventsrc rabbitmq routes", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	hosts = list_length(rabbit->options->hosts);
	for (int i = 0; i < hosts && rabbit->link == NULL; i++, turn++)
	{
		const char *host = list_nth(rabbit->options->hosts, turn % hosts);

		rabbit->link = es_rabbitmq_connect(context, rabbit->options, host, &rabbit->heartbeat, error, error_size);
		if (rabbit->link == NULL)
			continue;
		snprintf(rabbit->base.address, sizeof(rabbit->base.address), "%s:%d", host, rabbit->options->port);
		break;
	}
	MemoryContextSwitchTo(before);
	if (rabbit->link == NULL)
	{
		MemoryContextDelete(context);
		return NULL;
	}
	es_rabbitmq_fence_start(&rabbit->fence, rabbit->link, rabbit->options, sender);
	rabbit->base.busy = !es_rabbitmq_fence_passed(&rabbit->fence);
	rabbit->base.wake = rabbit->link->socket;
	rabbit->base.wake_ms = Min(rabbit->heartbeat, 10) * 1000 / 4;
	return &rabbit->base;
}

/*
 * rabbit_send writes an event into the buffer of what goes out.
 */
static EsSendResult
rabbit_send(EsBroker *broker, const EsMessage *message)
{
	EsRabbit   *rabbit = (EsRabbit *) broker;
	EsRabbitOptions *options = rabbit->options;
	amqp_bytes_t exchange;
	amqp_bytes_t routing_key;
	uint64		route;
	bool		known = true;

	if (broker->failed)
		return ES_SEND_FAILED;
	broker->busy = !has_room(rabbit);
	if (broker->busy)
		return ES_SEND_FULL;

	if (message->value_length > VALUE_MOST)
		return refuse_message(rabbit, message, "it is larger than RabbitMQ allows");

	es_rabbitmq_split(message->topic, options->exchange, &exchange, &routing_key);
	route = hash_bytes_extended((const unsigned char *) message->topic, strlen(message->topic), 0);
	if (hash_get_num_entries(rabbit->routes) < ROUTES_MOST)
		(void) hash_search(rabbit->routes, &route, HASH_FIND, &known);
	if (!known && options->declare_exchange)
		(void) es_rabbitmq_declare_exchange(rabbit->link, options, exchange, 0);

	if (!es_rabbitmq_put_message(rabbit->link, ES_RABBITMQ_CHANNEL, exchange, routing_key, message))
		return refuse_message(rabbit, message, "its metadata and key do not fit into a frame of the broker's");
	rabbit->awaiting = !known;
	rabbit->awaited = es_window_add(broker->window, message->position,
									message->key_length + message->value_length);
	rabbit->awaited_route = route;

	if (es_rabbitmq_unwritten(rabbit->link) >= OUT_FLUSH && !es_rabbitmq_flush(rabbit->link))
		note_failure(rabbit);
	return ES_SEND_OK;
}

/*
 * rabbit_poll writes and reads what is possible without waiting.
 */
static void
rabbit_poll(EsBroker *broker)
{
	EsRabbit   *rabbit = (EsRabbit *) broker;

	if (broker->failed)
		return;
	(void) es_rabbitmq_flush(rabbit->link);
	read_frames(rabbit);
	pass_confirmed(rabbit);
	if (!broker->failed)
		keep_alive(rabbit);

	/* not too soon, as pages should be large when there is much to do */
	if (broker->busy)
		broker->busy = !has_room(rabbit) ||
			es_window_pending(broker->window) > rabbit->options->window / 2 ||
			es_rabbitmq_unwritten(rabbit->link) > OUT_MOST / 2;
	broker->wake_on_write = es_rabbitmq_wants_write(rabbit->link);
}

/*
 * rabbit_flush waits for the confirmation of all that was sent.
 */
static void
rabbit_flush(EsBroker *broker, int timeout_ms)
{
	EsRabbit   *rabbit = (EsRabbit *) broker;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	rabbit_poll(broker);
	while (!broker->failed && es_window_pending(broker->window) > 0 &&
		   GetCurrentTimestamp() < until)
	{
		wait_a_little(rabbit, until);
		rabbit_poll(broker);
	}
}

/*
 * rabbit_probe has nothing to ask: the broker says by itself when it takes
 * messages again.
 */
static void
rabbit_probe(EsBroker *broker, int timeout_ms)
{
	rabbit_poll(broker);
}

/*
 * rabbit_close ends the connection, in good order if the broker answers soon.
 */
static void
rabbit_close(EsBroker *broker)
{
	EsRabbit   *rabbit = (EsRabbit *) broker;
	EsRabbitLink *link = rabbit->link;
	amqp_connection_close_t goodbye = {0};
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GOODBYE_MS);

	goodbye.reply_code = AMQP_REPLY_SUCCESS;
	goodbye.reply_text = amqp_cstring_bytes("bye");
	if (link->error[0] == '\0' && es_rabbitmq_unwritten(link) == 0 &&
		es_rabbitmq_put_method(link, 0, AMQP_CONNECTION_CLOSE_METHOD, &goodbye))
	{
		amqp_frame_t frame;
		int			got = 0;

		while (es_rabbitmq_flush(link) && GetCurrentTimestamp() < until)
		{
			while ((got = es_rabbitmq_read_frame(link, &frame)) > 0)
			{
				if (frame.frame_type == AMQP_FRAME_METHOD &&
					frame.payload.method.id == AMQP_CONNECTION_CLOSE_OK_METHOD)
					break;
			}
			if (got != 0)
				break;
			wait_a_little(rabbit, until);
		}
	}
	es_rabbitmq_link_close(link);
	MemoryContextDelete(rabbit->context);
}

/*
 * has_room tells whether an event may be sent now.
 */
static bool
has_room(EsRabbit *rabbit)
{
	uint64		pending = es_window_pending(rabbit->base.window);

	return !rabbit->awaiting && !rabbit->returned &&
		es_rabbitmq_fence_passed(&rabbit->fence) &&
		pending < rabbit->options->window &&
		!(rabbit->draining && pending > 0) &&
		es_rabbitmq_unwritten(rabbit->link) <= OUT_MOST;
}

/*
 * refuse_message reports an event that cannot be sent, once those before it are
 * confirmed.
 */
static EsSendResult
refuse_message(EsRabbit *rabbit, const EsMessage *message, const char *reason)
{
	EsBroker   *broker = &rabbit->base;

	if (rabbit->link->error[0] != '\0')
	{
		note_failure(rabbit);
		return ES_SEND_FAILED;
	}
	if (es_window_pending(broker->window) > 0)
	{
		rabbit->draining = true;
		broker->busy = true;
		return ES_SEND_FULL;
	}
	es_broker_reject(broker, message->position, "%s", reason);
	broker->failed = true;
	return ES_SEND_FAILED;
}

/*
 * read_frames takes in all that the broker has sent.
 */
static void
read_frames(EsRabbit *rabbit)
{
	amqp_frame_t frame;

	while (!rabbit->base.failed && es_rabbitmq_read_frame(rabbit->link, &frame) > 0)
	{
		if (frame.channel == ES_RABBITMQ_FENCE_CHANNEL)
			take_fence(rabbit, &frame);
		else if (frame.frame_type == AMQP_FRAME_METHOD)
			take_method(rabbit, &frame);
		else if (frame.frame_type == AMQP_FRAME_HEADER && rabbit->returning)
			take_return(rabbit, frame.payload.properties.decoded);
	}
	if (rabbit->link->error[0] != '\0')
		note_failure(rabbit);
}

/*
 * take_method takes in a method.
 */
static void
take_method(EsRabbit *rabbit, const amqp_frame_t *frame)
{
	EsBroker   *broker = &rabbit->base;

	switch (frame->payload.method.id)
	{
		case AMQP_BASIC_ACK_METHOD:
			take_ack(rabbit, frame->payload.method.decoded);
			break;
		case AMQP_BASIC_NACK_METHOD:
			take_nack(rabbit, frame->payload.method.decoded);
			break;
		case AMQP_BASIC_RETURN_METHOD:
			begin_return(rabbit, frame->payload.method.decoded);
			break;
		case AMQP_CONNECTION_BLOCKED_METHOD:
			{
				const amqp_connection_blocked_t *blocked = frame->payload.method.decoded;

				es_broker_error(broker, "blocked: %.*s", (int) blocked->reason.len,
								(char *) blocked->reason.bytes);
				broker->troubled = true;
				break;
			}
		case AMQP_CONNECTION_UNBLOCKED_METHOD:
			broker->troubled = false;
			break;
		case AMQP_CHANNEL_CLOSE_METHOD:
		case AMQP_CONNECTION_CLOSE_METHOD:
			take_close(rabbit, frame);
			break;
		default:
			break;
	}
}

/*
 * take_fence takes in what the fence asked for: whether this relay is to leave
 * off.
 */
static void
take_fence(EsRabbit *rabbit, const amqp_frame_t *frame)
{
	EsBroker   *broker = &rabbit->base;

	es_rabbitmq_fence_take(&rabbit->fence, frame);
	if (!rabbit->fence.over || broker->fenced)
		return;
	es_broker_error(broker, "another server sends in place of this one: it is of a later timeline, says queue \"%s\"",
					rabbit->fence.mark);
	broker->fenced = true;
	broker->fenced_hint = "If this server is the one that is to send, see to it that the other's relay does not run, delete that queue in RabbitMQ, then call es_resume_relay() here.";
}

/*
 * take_ack notes that an event, or all up to it, has arrived.  What came back
 * is confirmed, too, and does not count.
 */
static void
take_ack(EsRabbit *rabbit, const amqp_basic_ack_t *ack)
{
	EsWindow   *window = rabbit->base.window;
	uint64		last = rabbit->first + ack->delivery_tag - 1;

	if (last >= window->next)
		return;
	if (ack->multiple && !rabbit->returned)
	{
		es_window_confirm_through(window, last);
		return;
	}
	for (uint64 i = ack->multiple ? window->first : last; i <= last; i++)
	{
		if (!rabbit->returned || i != rabbit->returned_sequence)
			es_window_confirm(window, i);
	}
}

/*
 * take_nack notes that the broker could not take an event: the connection is
 * given up and all begins anew with it.
 */
static void
take_nack(EsRabbit *rabbit, const amqp_basic_nack_t *nack)
{
	EsBroker   *broker = &rabbit->base;
	uint64		sequence = rabbit->first + nack->delivery_tag - 1;
	int64		position = es_window_position(broker->window, sequence);

	if (position < 0)
		return;
	es_broker_error(broker, "the broker did not take the event at position " INT64_FORMAT "%s (basic.nack)",
					position, nack->multiple ? " and those before it" : "");
	broker->refused = Max(broker->refused, position);
	broker->failed = true;
}

/*
 * begin_return notes why a message comes back; which it is, its properties
 * tell, which follow.
 */
static void
begin_return(EsRabbit *rabbit, const amqp_basic_return_t *returned)
{
	if (returned->reply_code == AMQP_NO_ROUTE)
		snprintf(rabbit->return_reason, sizeof(rabbit->return_reason),
				 "no queue is bound to exchange \"%.*s\" for routing key \"%.*s\"",
				 (int) returned->exchange.len, (char *) returned->exchange.bytes,
				 (int) returned->routing_key.len, (char *) returned->routing_key.bytes);
	else
		snprintf(rabbit->return_reason, sizeof(rabbit->return_reason),
				 "the broker returned it: %d %.*s", returned->reply_code,
				 (int) returned->reply_text.len, (char *) returned->reply_text.bytes);
	rabbit->returning = true;
}

/*
 * take_return finds the event that came back.  Its confirmation follows and
 * must not count.
 */
static void
take_return(EsRabbit *rabbit, const amqp_basic_properties_t *properties)
{
	EsWindow   *window = rabbit->base.window;
	int64		position = es_rabbitmq_position(properties);
	uint64		sequence = window->first;

	rabbit->returning = false;
	for (uint64 i = window->first; i < window->next; i++)
	{
		if (es_window_position(window, i) == position)
			sequence = i;
	}
	if (!rabbit->returned || sequence < rabbit->returned_sequence)
		rabbit->returned_sequence = sequence;
	rabbit->returned = true;
}

/*
 * take_close takes in that the broker ends the channel or the connection.  An
 * event that is refused so, alone, is refused for good.
 */
static void
take_close(EsRabbit *rabbit, const amqp_frame_t *frame)
{
	EsBroker   *broker = &rabbit->base;
	EsWindow   *window = broker->window;
	const amqp_channel_close_t *close = frame->payload.method.decoded;
	uint64		pending = es_window_pending(window);
	amqp_channel_close_ok_t answer = {0};

	if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD && pending > 0)
	{
		broker->refused = es_window_position(window, window->next - 1);
		if (pending == 1 && close->reply_code == AMQP_PRECONDITION_FAILED &&
			close->class_id == AMQP_BASIC_CLASS)
			es_broker_reject(broker, broker->refused, "%.*s", (int) close->reply_text.len,
							 (char *) close->reply_text.bytes);
	}
	if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD)
		(void) es_rabbitmq_put_method(rabbit->link, frame->channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer);
	else
		(void) es_rabbitmq_put_method(rabbit->link, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &answer);
	(void) es_rabbitmq_flush(rabbit->link);
	es_rabbitmq_closed_error(rabbit->link, frame);
}

/*
 * pass_confirmed goes on from what is confirmed: the route of an event that was
 * awaited is good; an event that came back is reported once those before it are
 * confirmed.
 */
static void
pass_confirmed(EsRabbit *rabbit)
{
	EsBroker   *broker = &rabbit->base;
	EsWindow   *window = broker->window;

	if (rabbit->awaiting && rabbit->awaited < window->first)
	{
		rabbit->awaiting = false;
		(void) hash_search(rabbit->routes, &rabbit->awaited_route, HASH_ENTER, NULL);
	}
	if (es_window_pending(window) == 0)
		rabbit->draining = false;
	if (rabbit->returned && window->first == rabbit->returned_sequence && !broker->failed)
	{
		es_broker_reject(broker, es_window_position(window, window->first), "%s", rabbit->return_reason);
		broker->refused = es_window_position(window, window->next - 1);
		broker->failed = true;
	}
}

/*
 * keep_alive sends heartbeats, and misses the broker's.
 */
static void
keep_alive(EsRabbit *rabbit)
{
	EsRabbitLink *link = rabbit->link;
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(link->received_at, now, rabbit->heartbeat * 2000))
	{
		es_rabbitmq_link_error(link, "nothing was heard of the broker for %d s", rabbit->heartbeat * 2);
		note_failure(rabbit);
		return;
	}
	if (!es_rabbitmq_fence_poll(&rabbit->fence, now, rabbit->base.troubled))
	{
		note_failure(rabbit);
		return;
	}
	if (es_rabbitmq_unwritten(link) == 0 &&
		TimestampDifferenceExceeds(link->written_at, now, rabbit->heartbeat * 500))
	{
		es_rabbitmq_put_heartbeat(link);
		if (!es_rabbitmq_flush(link))
			note_failure(rabbit);
	}
}

/*
 * note_failure reports that the link is dead.
 */
static void
note_failure(EsRabbit *rabbit)
{
	if (rabbit->base.failed)
		return;
	es_broker_error(&rabbit->base, "%s", rabbit->link->error);
	rabbit->base.failed = true;
}

/*
 * wait_a_little waits until the socket is ready, at most until then; not on the
 * latch, as the process may be about to end.
 */
static void
wait_a_little(EsRabbit *rabbit, TimestampTz until)
{
	struct pollfd wanted = {0};
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	wanted.fd = rabbit->link->socket;
	wanted.events = POLLIN | (es_rabbitmq_wants_write(rabbit->link) ? POLLOUT : 0);
	(void) poll(&wanted, 1, (int) Min(left + 1, 100));
}
