/*
 * run.h
 *		What the worker of a relay knows, and the part of it that sends.
 */
#ifndef EVENTSRC_RUN_H
#define EVENTSRC_RUN_H

#include "relay/envelope.h"
#include "store/position.h"

#include "access/xlogdefs.h"

#define ES_RUN_PAUSE_MS	1000	/* after the first failure */

typedef struct EsRun
{
	int64		id;
	int			lane;
	EsRelay    *relay;			/* in context */
	const EsBrokerType *type;
	EsEnvelope *envelope;		/* its messages, in context */
	List	   *options;		/* of the server and user mapping, in context */
	MemoryContext context;		/* one attempt */
	MemoryContext event;		/* one event */
	EsBroker   *broker;			/* NULL: not connected */
	bool		positioned;		/* it is known where to go on */
	bool		exactly_once;	/* the broker keeps the position */
	bool		wanted;			/* so the relay's row had it */
	int64		rewound_total;	/* events confirmed at the last rewind */
	int64		epoch;			/* of the relay's row when it was connected */
	EsWindow   *window;
	EsDatabase *database;		/* its positions */
	uint64		moves;			/* of the safe position, before it was read */
	int64		scanned;		/* everything up to here is handed over */
	bool		complete;		/* nothing more is known to be there */
	bool		full;			/* the broker takes no more at present */
	int64		saved;			/* the position in eventsrc.relays */
	TimestampTz saved_at;
	uint64		errors;			/* of the broker, that were reported */
	bool		retrying;		/* so it was reported */
	TimestampTz probed_at;
	int64		failed_total;	/* events confirmed by then */
	TimestampTz moved_at;		/* when something was confirmed or nothing
								 * awaited */
	int64		moved_total;	/* events confirmed by then */
	int64		refused;		/* events up to here are sent one by one */
	int64		first_total;	/* events confirmed when the broker was opened */
	int64		trimmed_total;	/* events confirmed when memory was last given
								 * back */
	int			pause_ms;		/* after the next failure */
	volatile bool catalog_changed;	/* so the relay is to be loaded again; set
									 * by invalidation messages for servers,
									 * user mappings, roles, schemas and the
									 * table eventsrc.relays */
	bool		reloaded;		/* the configuration was, since this was
								 * cleared */
	bool		leave;			/* the relay is gone or not to run */
	Oid			table;			/* eventsrc.relays */

	/* if it sends only what a synchronous standby has (standby.c) */
	int64		replicated;		/* everything up to here is there */
	int64		replicating;	/* this position is awaited */
	XLogRecPtr	replicating_lsn;	/* by then it is there */
	TimestampTz replicating_since;
	bool		awaits_standby;
	bool		standby_missed; /* so it was reported */
	int			standby_ms;		/* how long to wait before looking again */

	char		stop[ES_RELAY_ERROR];	/* why the relay must stop, if so */
	const char *stop_hint;
} EsRun;

/* relay.c */
extern bool es_run_load(EsRun *run);
extern void es_run_save(EsRun *run, bool now);

/* relay_wait.c */
extern void es_run_name_waits(void);
extern void es_run_wait_for_work(EsRun *run);
extern void es_run_wait_for_people(EsRun *run);
extern void es_run_pause(EsRun *run);
extern bool es_run_is_leaving(EsRun *run);

/* send.c */
extern void es_run_read(EsRun *run);
extern bool es_run_has_room(EsRun *run);
extern void es_run_dead_letter(EsRun *run, int64 position, const char *reason);

/* lane.c */
extern void es_run_turn(EsRun *run);

/* standby.c */
extern int64 es_run_limit(EsRun *run, int64 safe);

/* memory.c */
extern void es_memory_begin(void);
extern void es_memory_end_burst(EsRun *run);

/* progress.c */
extern void es_run_position(EsRun *run);
extern void es_run_rewind(EsRun *run);

#endif							/* EVENTSRC_RUN_H */
