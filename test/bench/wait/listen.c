/*
 * listen.c
 *		How long after COMMIT was sent a reader is told of the event, by
 *		es_wait() or by LISTEN/NOTIFY, at a paced rate.
 *
 *		listen es_wait|notify|both RATE SECONDS     connects as PGHOST and the like say
 *		prints p50, p99 and the maximum, in ms; of both, a line each
 *
 * With both the two take turns, TURN events each, under one writer: what the
 * machine and its disk do meanwhile meets both alike.  The first events after a
 * turn began do not count.
 *
 * One child appends, one event a transaction, and notes when it commits (the
 * answer comes later than some readers are told, so it is no good to count
 * from); this process waits, notes when it was told, and reads.  The child
 * notifies in both cases, so that both waiters stand beside the same load.
 * Both take the event by its position; the clock is the machine's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <libpq-fe.h>

#define MAX_EVENTS 1000000

#define TURN	50				/* events */
#define SETTLE	5				/* of these do not count */

enum
{
	ES_WAIT, NOTIFY, BOTH
};
static const char *const ways[] = {"es_wait", "notify", "both"};

typedef struct Event
{
	long long	position;
	double		committed;		/* COMMIT is sent */
} Event;

static volatile Event *events;	/* shared between the two processes */

/*
 * now returns the time in microseconds.
 */
static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/*
 * run executes a statement, and ends the program if it fails.
 */
static PGresult *
run(PGconn *conn, const char *name, const char *parameter)
{
	PGresult   *result = parameter ?
		PQexecPrepared(conn, name, 1, &parameter, NULL, NULL, 0) : PQexec(conn, name);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "%s: %s", name, PQerrorMessage(conn));
		exit(1);
	}
	return result;
}

/*
 * begin connects and prepares a statement of one parameter.
 */
static PGconn *
begin(const char *statement)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(PQprepare(conn, "s", statement, 1, NULL));
	return conn;
}

/*
 * append appends count events at a rate, with a notification each.
 */
static void
append(int count, double rate)
{
	PGconn	   *conn = begin("WITH n AS MATERIALIZED (SELECT pg_notify('bench', '')) "
							 "SELECT e.global_position FROM es_append('Bench', $1, 'Happened', '{\"n\": 1}') e, n");
	double		start = now() + 500000;

	for (int i = 0; i < count; i++)
	{
		double		at = start + i * 1e6 / rate;
		double		left = at - now();
		char		id[32];
		PGresult   *result;

		if (left > 0)
			usleep((useconds_t) left);
		snprintf(id, sizeof(id), "%d-%d", (int) getpid(), i % 100);
		PQclear(run(conn, "BEGIN", NULL));
		result = run(conn, "s", id);
		events[i].position = atoll(PQgetvalue(result, 0, 0));
		PQclear(result);
		events[i].committed = now();
		PQclear(run(conn, "COMMIT", NULL));
	}
	PQfinish(conn);
	_exit(0);
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/*
 * listened waits for a notification, and takes all that have come.
 */
static void
listened(PGconn *conn)
{
	PGnotify   *notification;
	int			woken = 0;

	for (;;)
	{
		struct pollfd fd = {.fd = PQsocket(conn),.events = POLLIN};

		while ((notification = PQnotifies(conn)) != NULL)
		{
			woken = 1;
			PQfreemem(notification);
		}
		if (woken)
			return;
		if (poll(&fd, 1, 5000) <= 0)
		{
			fprintf(stderr, "no notification came\n");
			exit(1);
		}
		PQconsumeInput(conn);
	}
}

/*
 * print_latencies prints what one way of waiting took.
 */
static void
print_latencies(double *latencies, int n)
{
	qsort(latencies, n, sizeof(double), compare);
	printf("%.3f %.3f %.3f\n", latencies[n / 2] / 1000, latencies[(int) (n * 0.99)] / 1000, latencies[n - 1] / 1000);
}

/*
 * measure follows the events by one way of waiting, or by both in turns.
 */
static void
measure(int count, double rate, int mode)
{
	PGconn	   *reader = begin("SELECT global_position FROM es_read_all($1, 1000)");
	PGconn	   *sleeper = begin("SELECT es_wait($1, '5s')");
	char		position[32];
	int			seen = 0;
	long long  *positions = malloc(count * sizeof(long long));
	double	   *times = malloc(count * sizeof(double));
	char	   *told_by = malloc(count);
	int			way = mode == NOTIFY ? NOTIFY : ES_WAIT;
	int			followed = 0;
	PGresult   *result;

	result = run(reader, "SELECT es_safe_position()", NULL);
	snprintf(position, sizeof(position), "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	if (mode == NOTIFY)
		PQclear(run(sleeper, "LISTEN bench", NULL));
	if (fork() == 0)
		append(count, rate);

	while (seen < count)
	{
		int			turn = mode == BOTH ? (seen / TURN) % 2 : mode;
		int			turned = turn != way;
		double		at;
		int			rows;

		if (turned)
			PQclear(run(sleeper, turn == NOTIFY ? "LISTEN bench" : "UNLISTEN bench", NULL));
		way = turn;
		/* what was committed before LISTEN is not told */
		if (way == ES_WAIT)
			PQclear(run(sleeper, "s", position));
		else if (!turned)
			listened(sleeper);
		/* the moment of being told; what it is about is read afterwards */
		at = now();
		result = run(reader, "s", position);
		rows = PQntuples(result);
		for (int i = 0; i < rows && seen < count; i++)
		{
			positions[seen] = atoll(PQgetvalue(result, i, 0));
			told_by[seen] = mode == BOTH && seen % TURN < SETTLE ? BOTH : way;
			times[seen++] = at;
		}
		if (rows > 0)
			snprintf(position, sizeof(position), "%s", PQgetvalue(result, rows - 1, 0));
		PQclear(result);
	}
	wait(NULL);

	for (int w = ES_WAIT; w <= NOTIFY; w++)
	{
		double	   *latencies = malloc(count * sizeof(double));
		int			n = 0;

		for (int i = 0; i < count; i++)
		{
			if (positions[i] == events[i].position && told_by[i] == w)
				latencies[n++] = times[i] - events[i].committed;
			followed += w == ES_WAIT && positions[i] == events[i].position;
		}
		if (n > 0)
			print_latencies(latencies, n);
		free(latencies);
	}
	if (followed < count)
	{
		fprintf(stderr, "%d events appended, %d followed\n", count, followed);
		exit(1);
	}
	PQfinish(reader);
	PQfinish(sleeper);
	free(positions);
	free(times);
	free(told_by);
}

int
main(int argc, char **argv)
{
	double		rate = argc == 4 ? atof(argv[2]) : 0;
	int			count = argc == 4 ? (int) (rate * atof(argv[3])) : 0;
	int			mode = 0;

	while (argc > 1 && mode <= BOTH && strcmp(argv[1], ways[mode]) != 0)
		mode++;
	if (mode > BOTH || count < 1 || count > MAX_EVENTS)
		return 2;
	events = mmap(NULL, MAX_EVENTS * sizeof(Event), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	measure(count, rate, mode);
	return 0;
}
