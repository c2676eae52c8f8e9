/*
 * rabbitmq_resolve.c
 *		A host's addresses, looked up without hanging.
 *
 * getaddrinfo() may take as long as the name servers keep it waiting, and
 * cannot be interrupted.  So a thread of its own calls it, all signals
 * blocked; it touches nothing of PostgreSQL and is left to itself when it takes
 * too long.
 */
#include "relay/rabbitmq.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "port/atomics.h"
#include "storage/latch.h"

/* in malloc'd memory; who is done with it last frees it */
typedef struct Lookup
{
	pg_atomic_uint32 users;
	int			pipe[2];		/* readable when the answer is there */
	int			status;
	struct addrinfo *addresses;
	char		port[16];
	char		host[FLEXIBLE_ARRAY_MEMBER];
} Lookup;

static Lookup *start_lookup(const char *host, int port, char *error, size_t error_size);
static bool start_thread(Lookup *lookup);
static void *run_lookup(void *argument);
static void leave_lookup(Lookup *lookup);
static int	look_up(const char *host, const char *port, int flags, struct addrinfo **addresses);

/*
 * es_rabbitmq_resolve returns a host's addresses, for freeaddrinfo(), or NULL
 * and an error.
 */
struct addrinfo *
es_rabbitmq_resolve(const char *host, int port, TimestampTz deadline,
					char *error, size_t error_size)
{
	char		service[16];
	struct addrinfo *addresses = NULL;
	Lookup	   *lookup;

	/* a numeric address needs no name server */
	snprintf(service, sizeof(service), "%d", port);
	if (look_up(host, service, AI_NUMERICHOST, &addresses) == 0)
		return addresses;

	lookup = start_lookup(host, port, error, error_size);
	if (lookup == NULL)
		return NULL;
	if (es_rabbitmq_wait(lookup->pipe[0], WL_SOCKET_READABLE, deadline, error, error_size))
	{
		/* the write to the pipe came after all else */
		pg_read_barrier();
		if (lookup->status == 0)
		{
			addresses = lookup->addresses;
			lookup->addresses = NULL;
		}
		else
			snprintf(error, error_size, "could not find host \"%s\": %s",
					 host, gai_strerror(lookup->status));
	}
	else if (error[0] == '\0')
		snprintf(error, error_size, "could not find host \"%s\": the name servers do not answer", host);
	leave_lookup(lookup);
	return addresses;
}

/*
 * start_lookup starts the thread; NULL and an error if that fails.
 */
static Lookup *
start_lookup(const char *host, int port, char *error, size_t error_size)
{
	Lookup	   *lookup = calloc(1, offsetof(Lookup, host) + strlen(host) + 1);

	if (lookup == NULL)
	{
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	strcpy(lookup->host, host);
	snprintf(lookup->port, sizeof(lookup->port), "%d", port);
	pg_atomic_init_u32(&lookup->users, 2);
	if (pipe(lookup->pipe) != 0)
	{
		snprintf(error, error_size, "could not create pipe: %m");
		free(lookup);
		return NULL;
	}
	for (int i = 0; i < 2; i++)
		(void) fcntl(lookup->pipe[i], F_SETFD, FD_CLOEXEC);
	if (!start_thread(lookup))
	{
		snprintf(error, error_size, "could not start a thread that looks up host \"%s\"", host);
		leave_lookup(lookup);
		leave_lookup(lookup);
		return NULL;
	}
	return lookup;
}

/*
 * start_thread starts a detached thread with all signals blocked: it must never
 * see one that is meant for the server process.
 */
static bool
start_thread(Lookup *lookup)
{
	pthread_t	thread;
	pthread_attr_t attributes;
	sigset_t	all;
	sigset_t	before;
	bool		started;

	if (pthread_attr_init(&attributes) != 0)
		return false;
	(void) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(&thread, &attributes, run_lookup, lookup) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return started;
}

/*
 * run_lookup is the thread.
 */
static void *
run_lookup(void *argument)
{
	Lookup	   *lookup = argument;

	lookup->status = look_up(lookup->host, lookup->port, 0, &lookup->addresses);
	pg_write_barrier();
	if (write(lookup->pipe[1], "1", 1) < 0)
	{
		/* nobody reads it any more */
	}
	leave_lookup(lookup);
	return NULL;
}

/*
 * leave_lookup gives up one use of a lookup (in either thread).
 */
static void
leave_lookup(Lookup *lookup)
{
	if (pg_atomic_sub_fetch_u32(&lookup->users, 1) > 0)
		return;
	if (lookup->addresses != NULL)
		freeaddrinfo(lookup->addresses);
	close(lookup->pipe[0]);
	close(lookup->pipe[1]);
	free(lookup);
}

/*
 * look_up asks for a host's addresses (in either thread).
 */
static int
look_up(const char *host, const char *port, int flags, struct addrinfo **addresses)
{
	struct addrinfo hints = {0};

	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_protocol = IPPROTO_TCP;
	hints.ai_flags = flags;
	return getaddrinfo(host, port, &hints, addresses);
}
