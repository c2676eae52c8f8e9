/*
 * kafka_thread.c
 *		Exactly once: the thread that waits for Kafka, so that the relay can
 *		read and produce meanwhile.
 *
 * It does one job at a time: start (fence others, read the progress), commit
 * one producer's transaction, abort all.  It has all signals blocked and
 * touches nothing of PostgreSQL.
 */
#include "relay/kafka_txn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* a step of a producer's transactions, which gives up after some time */
typedef rd_kafka_error_t *(*Step) (rd_kafka_t * producer, int timeout_ms);

/* how long an abort is deaf at a time */
#define ABORT_STEP_MS	20

static void *serve(void *argument);
static EsKafkaResult start(EsKafkaTxn *kafka, char *error, size_t error_size);
static EsKafkaResult read_last_record(EsKafkaTxn *kafka, char *error, size_t error_size);
static EsKafkaResult await_first_lane(EsKafkaTxn *kafka, char *error, size_t error_size);
static EsKafkaResult claim(EsKafkaTxn *kafka, bool found, char *error, size_t error_size);
static bool is_superseded(EsKafkaTxn *kafka, char *error, size_t error_size);
static EsKafkaResult flush(EsKafkaTxn *kafka, int turn, char *error, size_t error_size);
static int64 clock_ms(void);
static void wake(EsKafkaTxn *kafka);
static EsKafkaResult abort_all(EsKafkaTxn *kafka, char *error, size_t error_size);
static EsKafkaResult settle(EsKafkaTxn *kafka, int turn, Step step,
							char *error, size_t error_size);
static EsKafkaResult judge(rd_kafka_t * producer, rd_kafka_error_t *problem,
						   char *error, size_t error_size);
static bool doze(EsKafkaTxn *kafka);

/*
 * es_kafka_thread_start starts the thread; false if that fails.
 */
bool
es_kafka_thread_start(EsKafkaTxn *kafka)
{
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	kafka->has_thread = pthread_create(&kafka->thread, NULL, serve, kafka) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return kafka->has_thread;
}

/*
 * es_kafka_thread_ask gives the thread a job; the last one's result was taken.
 */
void
es_kafka_thread_ask(EsKafkaTxn *kafka, EsKafkaJob job, int turn)
{
	pthread_mutex_lock(&kafka->lock);
	Assert(!kafka->busy && !kafka->finished);
	kafka->job = job;
	kafka->job_turn = turn;
	kafka->asked_ms = clock_ms();
	kafka->sending = job == ES_JOB_COMMIT && kafka->turns[turn].count < ES_KAFKA_SMALL;
	kafka->busy = true;
	pthread_cond_signal(&kafka->asked);
	pthread_mutex_unlock(&kafka->lock);
}

/*
 * es_kafka_thread_is_idle tells whether it can be asked.
 */
bool
es_kafka_thread_is_idle(EsKafkaTxn *kafka)
{
	bool		idle;

	pthread_mutex_lock(&kafka->lock);
	idle = !kafka->busy && !kafka->finished;
	pthread_mutex_unlock(&kafka->lock);
	return idle;
}

/*
 * es_kafka_thread_wait waits until the thread's job is done or the time is
 * over, and tells whether there is a result to take.
 */
bool
es_kafka_thread_wait(EsKafkaTxn *kafka, int timeout_ms)
{
	struct timespec until;
	bool		finished;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long) (timeout_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L)
	{
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&kafka->lock);
	while (kafka->busy)
	{
		if (pthread_cond_timedwait(&kafka->done, &kafka->lock, &until) == ETIMEDOUT)
			break;
	}
	finished = kafka->finished;
	pthread_mutex_unlock(&kafka->lock);
	return finished;
}

/*
 * es_kafka_thread_end has the thread leave off and waits for its end.
 */
void
es_kafka_thread_end(EsKafkaTxn *kafka)
{
	if (!kafka->has_thread)
		return;
	pthread_mutex_lock(&kafka->lock);
	kafka->quit = true;
	pthread_cond_signal(&kafka->asked);
	pthread_mutex_unlock(&kafka->lock);
	pthread_join(kafka->thread, NULL);
	kafka->has_thread = false;
}

/*
 * serve does the jobs until it is to quit.
 */
static void *
serve(void *argument)
{
	EsKafkaTxn *kafka = argument;

	pthread_mutex_lock(&kafka->lock);
	while (!kafka->quit)
	{
		char		error[ES_BROKER_TEXT] = "";
		EsKafkaJob	job = kafka->job;
		int			turn = kafka->job_turn;
		EsKafkaResult result = ES_KAFKA_OK;
		int64		flushed_ms;

		if (!kafka->busy)
		{
			pthread_cond_wait(&kafka->asked, &kafka->lock);
			continue;
		}
		pthread_mutex_unlock(&kafka->lock);
		if (job == ES_JOB_START)
			result = start(kafka, error, sizeof(error));
		else if (job == ES_JOB_COMMIT)
		{
			result = flush(kafka, turn, error, sizeof(error));
			flushed_ms = clock_ms();
			if (kafka->sending)
			{
				kafka->sending = false;
				wake(kafka);
			}
			if (result == ES_KAFKA_OK)
				result = settle(kafka, turn, rd_kafka_commit_transaction, error, sizeof(error));
			kafka->commit_ms = clock_ms() - flushed_ms;
		}
		else if (job == ES_JOB_ABORT)
			result = abort_all(kafka, error, sizeof(error));
		pthread_mutex_lock(&kafka->lock);

		kafka->result = result;
		strlcpy(kafka->result_text, error, sizeof(kafka->result_text));
		kafka->busy = false;
		kafka->finished = true;
		pthread_cond_signal(&kafka->done);
		wake(kafka);
	}
	pthread_mutex_unlock(&kafka->lock);
	return NULL;
}

/*
 * start makes this process the one that sends for the relay, and reads how far
 * the relay has come.  First comes a look at the record as it is: whoever was
 * superseded must not fence the one that sends now.  Then the producers are
 * initialised, which ends whatever transaction another one has open and keeps
 * it from committing; only after that the record is final.
 */
static EsKafkaResult
start(EsKafkaTxn *kafka, char *error, size_t error_size)
{
	EsKafkaResult result;
	bool		found;

	result = es_kafka_provide_topic(kafka->reader, kafka->topic, &kafka->quit, error, error_size);
	if (result != ES_KAFKA_OK)
		return result;
	result = es_kafka_read_record(kafka->reader, kafka->topic, kafka->key, &kafka->record,
								  NULL, &kafka->quit, error, error_size);
	if (result == ES_KAFKA_OK && is_superseded(kafka, error, error_size))
		return ES_KAFKA_SUPERSEDED;
	if (result != ES_KAFKA_OK && result != ES_KAFKA_NOTHING)
		return result;
	result = await_first_lane(kafka, error, error_size);
	if (result != ES_KAFKA_OK)
		return result;

	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		EsKafkaTurn *turn = &kafka->turns[i];

		/*
		 * this asks for the topic's leader now: by name it is found out
		 * within a second
		 */
		if (turn->record_topic == NULL)
			turn->record_topic = rd_kafka_topic_new(turn->producer, kafka->topic, NULL);
		if (turn->record_topic == NULL)
		{
			strlcpy(error, rd_kafka_err2str(rd_kafka_last_error()), error_size);
			return ES_KAFKA_FAILED;
		}
		result = settle(kafka, i, rd_kafka_init_transactions, error, error_size);
		if (result != ES_KAFKA_OK)
			return result;
	}
	result = read_last_record(kafka, error, error_size);
	if (result != ES_KAFKA_OK && result != ES_KAFKA_NOTHING)
		return result;
	found = result == ES_KAFKA_OK;
	if (found && is_superseded(kafka, error, error_size))
		return ES_KAFKA_SUPERSEDED;

	result = claim(kafka, found, error, error_size);
	return result == ES_KAFKA_OK && !found ? ES_KAFKA_NOTHING : result;
}

/*
 * read_last_record reads the record once nothing in its topic is undecided.
 * Whatever the producers had begun before they were initialised is committed or
 * aborted by now.  If Kafka has lost track of a transaction, though, it shows
 * nothing behind it, and what it shows is not the last record: to go on from
 * there would send events again.  So this waits, however long that takes, until
 * somebody has ended that transaction.
 */
static EsKafkaResult
read_last_record(EsKafkaTxn *kafka, char *error, size_t error_size)
{
	EsKafkaResult result;
	bool		decided = false;

	for (;;)
	{
		result = es_kafka_read_record(kafka->reader, kafka->topic, kafka->key, &kafka->record,
									  &decided, &kafka->quit, error, error_size);
		if (decided || (result != ES_KAFKA_OK && result != ES_KAFKA_NOTHING))
			break;
		kafka->awaits_decision = true;
		if (!doze(kafka))
			return ES_KAFKA_QUIT;
	}
	kafka->awaits_decision = false;
	return result;
}

/*
 * await_first_lane has the other lanes wait until the first one has begun with
 * their epoch on their timeline.  The first is there however many lanes there
 * are, so its record tells all of them whether another server changed their
 * number, and what would fence them has fenced the first.
 */
static EsKafkaResult
await_first_lane(EsKafkaTxn *kafka, char *error, size_t error_size)
{
	EsKafkaResult result;

	if (kafka->first_topic[0] == '\0')
		return ES_KAFKA_OK;
	result = es_kafka_provide_topic(kafka->reader, kafka->first_topic, &kafka->quit, error, error_size);
	while (result == ES_KAFKA_OK)
	{
		EsKafkaRecord first;

		result = es_kafka_read_record(kafka->reader, kafka->first_topic, kafka->first_key, &first,
									  NULL, &kafka->quit, error, error_size);
		if (result != ES_KAFKA_OK && result != ES_KAFKA_NOTHING)
			break;
		if (result == ES_KAFKA_OK)
		{
			if (first.progress.epoch > kafka->epoch ||
				(first.progress.epoch == kafka->epoch && first.timeline > kafka->timeline))
			{
				snprintf(error, error_size,
						 "the broker has a record of the relay's first lane that was set later than that of this database: "
						 "of epoch " INT64_FORMAT " on timeline %u, here it is " INT64_FORMAT " on timeline %u",
						 first.progress.epoch, first.timeline, kafka->epoch, kafka->timeline);
				return ES_KAFKA_SUPERSEDED;
			}
			if (first.progress.epoch == kafka->epoch && first.timeline == kafka->timeline)
			{
				kafka->awaits_first = false;
				return ES_KAFKA_OK;
			}
		}
		kafka->awaits_first = true;
		result = doze(kafka) ? ES_KAFKA_OK : ES_KAFKA_QUIT;
	}
	return result;
}

/*
 * doze waits a moment; false if the thread is to quit.
 */
static bool
doze(EsKafkaTxn *kafka)
{
	struct timespec moment = {0, 100 * 1000000L};

	(void) nanosleep(&moment, NULL);
	return !kafka->quit;
}

/*
 * claim writes the record again, as our own, so that whoever we fenced sees by
 * whom.
 */
static EsKafkaResult
claim(EsKafkaTxn *kafka, bool found, char *error, size_t error_size)
{
	EsKafkaTurn *turn = &kafka->turns[0];
	EsKafkaRecord record = kafka->record;
	rd_kafka_error_t *problem;

	/* a position that was set since the record was written replaces it */
	if (!found || record.progress.epoch < kafka->epoch)
	{
		memset(&record, 0, sizeof(record));
		record.progress.position = kafka->start_position;
		record.progress.epoch = kafka->epoch;
	}
	record.timeline = kafka->timeline;
	record.writer = kafka->writer;

	problem = rd_kafka_begin_transaction(turn->producer);
	if (problem == NULL)
		problem = es_kafka_produce_record(turn->producer, turn->record_topic, kafka->key, &record);
	if (problem != NULL)
		return judge(turn->producer, problem, error, error_size);
	return settle(kafka, 0, rd_kafka_commit_transaction, error, error_size);
}

/*
 * is_superseded tells whether the record was written by a server that took
 * over from ours: one of a later timeline, or one that fenced this process.  A
 * seek made here since then takes it back.
 */
static bool
is_superseded(EsKafkaTxn *kafka, char *error, size_t error_size)
{
	EsKafkaRecord *record = &kafka->record;

	if (record->timeline < kafka->timeline ||
		record->progress.epoch < kafka->epoch ||
		record->writer == kafka->writer ||
		(record->timeline == kafka->timeline && !kafka->was_fenced))
		return false;
	snprintf(error, error_size,
			 "another server sends in place of this one: it has reached position " INT64_FORMAT
			 " on timeline %u, this server is on timeline %u",
			 record->progress.position, record->timeline, kafka->timeline);
	return true;
}

/*
 * flush sends all messages of a transaction and waits until they are in Kafka.
 * It must not take so long that the next producer no longer holds back what
 * it has, as that could come to stand before these; the transaction is aborted
 * then.
 */
static EsKafkaResult
flush(EsKafkaTxn *kafka, int turn, char *error, size_t error_size)
{
	rd_kafka_t *producer = kafka->turns[turn].producer;

	while (!kafka->quit && rd_kafka_fatal_error(producer, NULL, 0) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		bool		flushed = rd_kafka_flush(producer, ES_KAFKA_STEP_MS) == RD_KAFKA_RESP_ERR_NO_ERROR;

		es_kafka_listen(kafka, kafka->turns[turn].queue);
		if (flushed || es_kafka_has_failures(kafka))
			break;
		if (clock_ms() - kafka->asked_ms >= ES_KAFKA_FLUSH_MS)
		{
			snprintf(error, error_size, "the events did not reach Kafka within %d s",
					 ES_KAFKA_FLUSH_MS / 1000);
			return ES_KAFKA_ABORT;
		}
	}
	/* what is wrong shows when it is to be committed */
	return ES_KAFKA_OK;
}

/*
 * clock_ms reads a clock that nobody sets.
 */
static int64
clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * wake wakes the relay's thread; a pipe that is full does so as well.
 */
static void
wake(EsKafkaTxn *kafka)
{
	while (write(kafka->pipe[1], "1", 1) < 0 && errno == EINTR)
		;
}

/*
 * abort_all aborts the transactions of all producers.
 */
static EsKafkaResult
abort_all(EsKafkaTxn *kafka, char *error, size_t error_size)
{
	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		EsKafkaResult result;

		if (!kafka->turns[i].begun)
			continue;
		result = settle(kafka, i, rd_kafka_abort_transaction, error, error_size);
		if (result != ES_KAFKA_OK)
			return result;
	}
	return kafka->quit ? ES_KAFKA_QUIT : ES_KAFKA_OK;
}

/*
 * settle takes a step of a producer's, again and again until it is done, however
 * long that takes, or will not be.
 */
static EsKafkaResult
settle(EsKafkaTxn *kafka, int turn, Step step, char *error, size_t error_size)
{
	rd_kafka_t *producer = kafka->turns[turn].producer;

	/* an abort waits until somebody has heard of what it gives up */
	int			step_ms = step == rd_kafka_abort_transaction ? ABORT_STEP_MS : ES_KAFKA_STEP_MS;

	while (!kafka->quit)
	{
		rd_kafka_error_t *problem = step(producer, step_ms);

		es_kafka_listen(kafka, kafka->turns[turn].queue);
		if (problem == NULL)
			return ES_KAFKA_OK;
		if (!rd_kafka_error_is_retriable(problem))
			return judge(producer, problem, error, error_size);
		rd_kafka_error_destroy(problem);
	}
	return ES_KAFKA_QUIT;
}

/*
 * judge says what follows from an error that is not retriable.
 */
static EsKafkaResult
judge(rd_kafka_t * producer, rd_kafka_error_t *problem, char *error, size_t error_size)
{
	rd_kafka_resp_err_t code = rd_kafka_error_code(problem);
	rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(producer, NULL, 0);
	EsKafkaResult result;

	if (code == RD_KAFKA_RESP_ERR__FENCED || fatal == RD_KAFKA_RESP_ERR__FENCED)
		result = ES_KAFKA_FENCED;
	else if (rd_kafka_error_txn_requires_abort(problem) && fatal == RD_KAFKA_RESP_ERR_NO_ERROR)
		result = ES_KAFKA_ABORT;
	else
		result = ES_KAFKA_FAILED;
	strlcpy(error, rd_kafka_error_string(problem), error_size);
	rd_kafka_error_destroy(problem);
	return result;
}
