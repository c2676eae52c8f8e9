/*
 * kafka_commit.c
 *		Kafka, exactly once: how a relay's transactions begin and end.
 *
 * What the thread (kafka_thread.c) is asked to do, and what follows from its
 * answer: a commit confirms events and lets the next batch go, a failure undoes
 * all that is open, and what cannot be undone gives the producers up.
 */
#include "relay/kafka_txn.h"

#include "utils/timestamp.h"

/* positions that were passed over without any event are recorded this seldom */
#define QUIET_POSITIONS	10000

/*
 * A producer that begins right after its commit meets CONCURRENT_TRANSACTIONS,
 * as Kafka has yet to mark what was committed, and librdkafka waits 20 ms then.
 * So it rests after a batch that is too small to make up for that: longer than
 * the commit took, as the marks do if Kafka is busy.
 */
#define REST_MS			3

static void take_start(EsKafkaTxn *kafka, EsKafkaResult result);
static void take_commit(EsKafkaTxn *kafka, EsKafkaResult result);
static void take_abort(EsKafkaTxn *kafka, EsKafkaResult result);
static void take_failures(EsKafkaTxn *kafka);
static void lose(EsKafkaTxn *kafka, const char *reason, bool fenced);

/* whether this process was fenced after its start, by whomever; it outlives a connection */
static bool was_fenced = false;

/*
 * es_kafka_txn_was_fenced tells whether this process was fenced before.
 */
bool
es_kafka_txn_was_fenced(void)
{
	return was_fenced;
}

/*
 * es_kafka_txn_begin begins a turn's transaction; false if that fails.
 */
bool
es_kafka_txn_begin(EsKafkaTxn *kafka, EsKafkaTurn *turn)
{
	rd_kafka_error_t *error = rd_kafka_begin_transaction(turn->producer);

	if (error != NULL)
	{
		es_kafka_txn_fail(kafka, turn->producer, error);
		return false;
	}
	turn->begun = true;
	turn->count = 0;
	turn->progress = kafka->committed;
	return true;
}

/*
 * es_kafka_txn_submit has the filled transaction committed, if it is worth it
 * and none is being committed, and lets the next producer take what follows.
 */
void
es_kafka_txn_submit(EsKafkaTxn *kafka)
{
	EsBroker   *broker = &kafka->base;
	EsKafkaTurn *turn = &kafka->turns[kafka->filling];

	if (!kafka->started || kafka->aborting || broker->failed || broker->rewound ||
		!es_kafka_thread_is_idle(kafka))
		return;
	if (turn->count == 0)
	{
		if (kafka->scanned < kafka->committed.position + QUIET_POSITIONS ||
			(!turn->begun && !es_kafka_txn_begin(kafka, turn)))
			return;
		turn->progress.position = kafka->scanned;
	}

	if (!es_kafka_txn_add_progress(kafka, turn))
		return;
	kafka->cut = false;
	es_kafka_thread_ask(kafka, ES_JOB_COMMIT, kafka->filling);
	kafka->filling = (kafka->filling + 1) % ES_KAFKA_TURNS;
}

/*
 * es_kafka_txn_add_progress adds a record of a turn's progress to its
 * transaction; the last one counts.  False if that fails.
 */
bool
es_kafka_txn_add_progress(EsKafkaTxn *kafka, EsKafkaTurn *turn)
{
	EsKafkaRecord record = {0};
	rd_kafka_error_t *error;

	turn->progress.epoch = kafka->epoch;
	record.progress = turn->progress;
	record.timeline = kafka->timeline;
	record.writer = kafka->writer;
	error = es_kafka_produce_record(turn->producer, turn->record_topic, kafka->key, &record);
	if (error != NULL)
		es_kafka_txn_fail(kafka, turn->producer, error);
	return error == NULL;
}

/*
 * es_kafka_txn_take_result acts on what became of the thread's job, if it is
 * done.
 */
void
es_kafka_txn_take_result(EsKafkaTxn *kafka)
{
	EsKafkaResult result;
	EsKafkaJob	job;

	pthread_mutex_lock(&kafka->lock);
	if (!kafka->finished)
	{
		pthread_mutex_unlock(&kafka->lock);
		return;
	}
	kafka->finished = false;
	result = kafka->result;
	job = kafka->job;
	pthread_mutex_unlock(&kafka->lock);

	if (result == ES_KAFKA_SUPERSEDED)
		kafka->base.fenced = true;
	if (result == ES_KAFKA_SUPERSEDED || result == ES_KAFKA_FENCED || result == ES_KAFKA_FAILED)
		lose(kafka, kafka->result_text, result == ES_KAFKA_FENCED);
	else if (job == ES_JOB_START)
		take_start(kafka, result);
	else if (job == ES_JOB_COMMIT)
		take_commit(kafka, result);
	else if (job == ES_JOB_ABORT)
		take_abort(kafka, result);
}

/*
 * take_start goes on after the start.
 */
static void
take_start(EsKafkaTxn *kafka, EsKafkaResult result)
{
	if (result == ES_KAFKA_OK || result == ES_KAFKA_NOTHING)
	{
		kafka->started = true;
		kafka->found = result == ES_KAFKA_OK;
		kafka->base.troubled = false;
		kafka->committed = kafka->record.progress;
		kafka->scanned = kafka->committed.position;
	}
	else
		lose(kafka, kafka->result_text, false);
}

/*
 * take_commit confirms what is committed, or gives it up.
 */
static void
take_commit(EsKafkaTxn *kafka, EsKafkaResult result)
{
	EsKafkaTurn *turn = &kafka->turns[kafka->job_turn];

	if (result != ES_KAFKA_OK)
	{
		take_failures(kafka);
		if (!kafka->base.failed)
			es_kafka_txn_undo(kafka);
		return;
	}
	turn->begun = false;
	turn->rests_until = turn->count >= ES_KAFKA_SMALL ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									Min(REST_MS + 2 * kafka->commit_ms, ES_KAFKA_REST_MS));
	if (turn->count > 0)
		es_window_confirm_through(kafka->base.window, turn->last_sequence);
	turn->count = 0;
	kafka->committed = turn->progress;
	kafka->base.troubled = false;

	/* in the middle of a page the batch goes on growing */
	if (kafka->ended)
		es_kafka_txn_submit(kafka);
}

/*
 * take_abort begins anew after what is confirmed.
 */
static void
take_abort(EsKafkaTxn *kafka, EsKafkaResult result)
{
	kafka->aborting = kafka->cut = false;
	if (result != ES_KAFKA_OK)
	{
		kafka->base.failed = true;
		return;
	}
	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		kafka->turns[i].begun = false;
		kafka->turns[i].count = 0;
	}
	pthread_mutex_lock(&kafka->lock);
	kafka->failures = 0;
	kafka->failed_sequence = 0;
	pthread_mutex_unlock(&kafka->lock);
	kafka->base.rewound = true;
}

/*
 * take_failures says why a transaction cannot be committed.  If Kafka refuses
 * an event itself, though not alone, those up to it will go one by one.
 */
static void
take_failures(EsKafkaTxn *kafka)
{
	EsBroker   *broker = &kafka->base;
	rd_kafka_resp_err_t failure;
	int64		position;
	uint64		failures;

	pthread_mutex_lock(&kafka->lock);
	failures = kafka->failures;
	failure = kafka->failure;
	position = es_window_position(broker->window, kafka->failed_sequence);
	pthread_mutex_unlock(&kafka->lock);

	if (failures == 0)
		es_broker_error(broker, "%s", kafka->result_text);
	else if (es_kafka_is_final(failure) && es_window_pending(broker->window) == 1)
		es_broker_reject(broker, position, "topic \"%s\": %s",
						 kafka->failed_topic, rd_kafka_err2str(failure));
	else
	{
		es_broker_error(broker,
						"event at position " INT64_FORMAT ", or one of its batch, was not accepted by topic \"%s\": %s",
						position, kafka->failed_topic, rd_kafka_err2str(failure));
		if (es_kafka_is_final(failure))
			broker->refused = Max(broker->refused, position);
	}
}

/*
 * es_kafka_txn_undo has all open transactions aborted.
 */
void
es_kafka_txn_undo(EsKafkaTxn *kafka)
{
	if (kafka->aborting || !es_kafka_thread_is_idle(kafka))
		return;
	kafka->aborting = true;
	es_kafka_thread_ask(kafka, ES_JOB_ABORT, 0);
}

/*
 * es_kafka_txn_fail acts on an error of something that does not wait: all that
 * is open is aborted, or the producers are given up.
 */
void
es_kafka_txn_fail(EsKafkaTxn *kafka, rd_kafka_t * producer, rd_kafka_error_t *problem)
{
	bool		fatal = rd_kafka_error_is_fatal(problem) ||
		rd_kafka_fatal_error(producer, NULL, 0) != RD_KAFKA_RESP_ERR_NO_ERROR;
	bool		fenced = rd_kafka_fatal_error(producer, NULL, 0) == RD_KAFKA_RESP_ERR__FENCED;
	char text[	ES_BROKER_TEXT];

	snprintf(text, sizeof(text), "%s", rd_kafka_error_string(problem));
	rd_kafka_error_destroy(problem);

	/* a commit under way must be known to have failed before all is undone */
	if (fatal || !es_kafka_thread_is_idle(kafka))
		lose(kafka, text, fenced);
	else
	{
		pthread_mutex_lock(&kafka->lock);
		snprintf(kafka->result_text, sizeof(kafka->result_text), "%s", text);
		pthread_mutex_unlock(&kafka->lock);
		take_failures(kafka);
		es_kafka_txn_undo(kafka);
	}
}

/*
 * lose gives the producers up.  If they were fenced, the next start finds out
 * by whom: a transaction that lasted too long has the same effect as another
 * sender.  Who had yet to write a record of its own cannot tell by the one that
 * is there, and just begins anew.
 */
static void
lose(EsKafkaTxn *kafka, const char *reason, bool fenced)
{
	EsBroker   *broker = &kafka->base;

	es_broker_error(broker, "%s", reason[0] != '\0' ? reason : "the connection was given up");
	was_fenced |= fenced && kafka->started;
	broker->failed = true;
}
