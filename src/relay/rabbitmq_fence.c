/*
 * rabbitmq_fence.c
 *		Keeps an old primary from sending beside the standby that was promoted.
 *
 * RabbitMQ knows no producers that could be fenced, but queues last.  A relay
 * marks, by an empty queue each, the timelines before its server's as over.  It
 * asks whether its own is: before it sends anything, and every few seconds from
 * then on.  The question is a message to the queue that would be the mark, which
 * comes back if there is none.  Nothing of this is an error to the broker, and
 * its channel is not that of the events, so that a broker that does not allow
 * it (the rights to declare the queues, or to use the default exchange) only
 * takes away the fence.  A relay that ends by itself has none, and leaves no
 * queues behind.
 */
#include "relay/relay.h"

#include "relay/rabbitmq.h"
#include "utils/timestamp.h"

#define CHANNEL			ES_RABBITMQ_FENCE_CHANNEL
#define ASK_MS			5000
#define ANSWER_MS		10000	/* the first answer comes within this */
#define MARKS_MOST		32		/* timelines that are marked at a start */

static void mark_over(EsRabbitFence *fence, const EsSender *sender, uint32 timeline);
static void name_mark(char *name, const EsSender *sender, uint32 timeline);
static void ask(EsRabbitFence *fence);
static void take_answer(EsRabbitFence *fence);
static void give_up(EsRabbitFence *fence, const char *reason, int length);

/*
 * es_rabbitmq_fence_start writes the marks of earlier timelines and the first
 * question, over a link that is logged in.
 */
void
es_rabbitmq_fence_start(EsRabbitFence *fence, EsRabbitLink *link,
						const EsRabbitOptions *options, const EsSender *sender)
{
	amqp_channel_open_t open = {0};
	amqp_confirm_select_t confirm = {0};

	memset(fence, 0, sizeof(*fence));
	fence->link = link;
	if (!options->fence || sender->ends || link->channel_max < CHANNEL)
	{
		fence->off = true;
		return;
	}
	name_mark(fence->mark, sender, sender->timeline);
	if (!es_rabbitmq_put_method(link, CHANNEL, AMQP_CHANNEL_OPEN_METHOD, &open))
		return;
	for (uint32 timeline = Max(sender->timeline, MARKS_MOST + 1) - MARKS_MOST;
		 timeline < sender->timeline; timeline++)
		mark_over(fence, sender, timeline);
	if (es_rabbitmq_put_method(link, CHANNEL, AMQP_CONFIRM_SELECT_METHOD, &confirm))
		ask(fence);
}

/*
 * es_rabbitmq_fence_poll asks again when it is time; false if the broker does
 * not answer, then the link has an error.
 */
bool
es_rabbitmq_fence_poll(EsRabbitFence *fence, TimestampTz now, bool blocked)
{
	if (fence->off || fence->over)
		return true;
	if (blocked)
	{
		fence->asked_at = now;
		return true;
	}
	if (fence->asking)
	{
		if (fence->answered || !TimestampDifferenceExceeds(fence->asked_at, now, ANSWER_MS))
			return true;
		es_rabbitmq_link_error(fence->link,
							   "the broker does not say whether another server took over (queue \"%s\")", fence->mark);
		return false;
	}
	if (TimestampDifferenceExceeds(fence->asked_at, now, ASK_MS))
		ask(fence);
	return true;
}

/*
 * es_rabbitmq_fence_passed tells whether events may be sent.
 */
bool
es_rabbitmq_fence_passed(const EsRabbitFence *fence)
{
	return fence->off || (fence->answered && !fence->over);
}

/*
 * es_rabbitmq_fence_take takes in a frame of the fence's channel.
 */
void
es_rabbitmq_fence_take(EsRabbitFence *fence, const amqp_frame_t *frame)
{
	amqp_channel_close_ok_t answer = {0};
	const amqp_channel_close_t *close;

	if (frame->frame_type != AMQP_FRAME_METHOD)
		return;
	switch (frame->payload.method.id)
	{
		case AMQP_BASIC_RETURN_METHOD:
			fence->returned = true;
			break;
		case AMQP_BASIC_ACK_METHOD:
		case AMQP_BASIC_NACK_METHOD:
			take_answer(fence);
			break;
		case AMQP_CHANNEL_CLOSE_METHOD:
			close = frame->payload.method.decoded;
			give_up(fence, close->reply_text.bytes, (int) close->reply_text.len);
			(void) es_rabbitmq_put_method(fence->link, CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer);
			break;
		default:
			break;
	}
}

/*
 * mark_over declares the queue that says that a timeline is over.  It never
 * holds more than one question.
 */
static void
mark_over(EsRabbitFence *fence, const EsSender *sender, uint32 timeline)
{
	char		name[ES_RABBITMQ_MARK];
	amqp_table_entry_t arguments[2] = {
		{amqp_cstring_bytes("x-queue-type"), {.kind = AMQP_FIELD_KIND_UTF8}},
		{amqp_cstring_bytes("x-max-length"), {.kind = AMQP_FIELD_KIND_I32}},
	};
	amqp_queue_declare_t declare = {0};

	name_mark(name, sender, timeline);
	arguments[0].value.value.bytes = amqp_cstring_bytes("quorum");
	arguments[1].value.value.i32 = 1;
	declare.queue = amqp_cstring_bytes(name);
	declare.durable = 1;
	declare.arguments.entries = arguments;
	declare.arguments.num_entries = lengthof(arguments);
	(void) es_rabbitmq_put_method(fence->link, CHANNEL, AMQP_QUEUE_DECLARE_METHOD, &declare);
}

/*
 * name_mark writes the name of the queue that says that a timeline is over for
 * a relay.
 */
static void
name_mark(char *name, const EsSender *sender, uint32 timeline)
{
	snprintf(name, ES_RABBITMQ_MARK, "eventsrc.over." UINT64_FORMAT ".%u." INT64_FORMAT ".%u",
			 sender->system_identifier, sender->database, sender->relay, timeline);
}

/*
 * ask sends the question.
 */
static void
ask(EsRabbitFence *fence)
{
	EsMessage	question = {0};

	question.event_id = question.key = "";
	fence->returned = false;
	fence->asking = es_rabbitmq_put_message(fence->link, CHANNEL, amqp_empty_bytes,
											amqp_cstring_bytes(fence->mark), &question);
	fence->asked_at = GetCurrentTimestamp();
}

/*
 * take_answer takes in that the question arrived, unless it came back before.
 */
static void
take_answer(EsRabbitFence *fence)
{
	fence->asking = false;
	fence->answered = true;
	fence->over = !fence->returned;
}

/*
 * give_up goes on without the fence, and tells why once.
 */
static void
give_up(EsRabbitFence *fence, const char *reason, int length)
{
	static bool told = false;

	fence->off = true;
	if (!told)
		ereport(LOG,
				(errmsg("%s is not protected from another server that took over: %.*s",
						es_relay_title(), length, reason),
				 errhint("Let its user declare and write to queues \"eventsrc.over...\" by the default exchange, or set the server's option \"fence\" to \"off\".")));
	told = true;
}
