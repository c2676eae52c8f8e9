/*
 * slots.h
 *		The workers' table in shared memory; private to src/worker/.
 *
 * A slot belongs to a worker from before it is registered with the postmaster
 * until it has left, and stays after a failure to remember the back-off.  Slot
 * 0 is the launcher's; the next eventsrc.max_databases are those of the
 * databases' workers, the other eventsrc.max_relays of supervised workers.
 */
#ifndef EVENTSRC_WORKER_SLOTS_H
#define EVENTSRC_WORKER_SLOTS_H

#include "eventsrc.h"

#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "store/position.h"

#define ES_KIND_LAUNCHER	"launcher"
#define ES_KIND_DATABASE	"database"

#define ES_KIND_LEN			32
#define ES_LAST_ERROR_LEN	1024
#define ES_MAX_HOLDS		64
#define ES_MAX_AWAKENED		64

typedef enum EsWorkerState
{
	ES_WORKER_FREE,				/* the slot is free */
	ES_WORKER_STARTING,			/* registered, has not attached */
	ES_WORKER_PROBING,			/* looks for the extension */
	ES_WORKER_RUNNING,
	ES_WORKER_FAILED,			/* gone; to be started again at retry_at */
	ES_WORKER_ABSENT			/* gone: found no extension; for the launcher */
} EsWorkerState;

#define ES_WORKER_LIVES(state) \
	((state) == ES_WORKER_STARTING || (state) == ES_WORKER_PROBING || \
	 (state) == ES_WORKER_RUNNING)

typedef struct EsWorkerSlot
{
	EsWorkerState state;
	uint32		generation;		/* changes whenever the slot is given out */
	char		kind[ES_KIND_LEN];
	Oid			dboid;
	int64		id;
	pid_t		pid;			/* 0: no process attached */
	PGPROC	   *proc;			/* with pid */
	bool		leave;			/* told to exit */
	bool		woken;			/* told to look again */
	TimestampTz leave_at;		/* when it was first told */
	TimestampTz started_at;
	TimestampTz retry_at;
	int			failures;		/* in a row */
	TimestampTz last_error_at;	/* 0: none */
	int			last_error_encoding;
	char		last_error[ES_LAST_ERROR_LEN];
} EsWorkerSlot;

/* no worker starts in this database until the transaction of pid ends */
typedef struct EsWorkerHold
{
	Oid			dboid;			/* InvalidOid: free */
	pid_t		pid;
} EsWorkerHold;

typedef struct EsWorkers
{
	LWLock	   *lock;			/* guards everything below */
	EsWorkerHold holds[ES_MAX_HOLDS];
	int			nawakened;
	Oid			awakened[ES_MAX_AWAKENED];	/* for the launcher to probe again */
	bool		awaken_all;		/* awakened[] overflowed */
	int			nslots;
	EsWorkerSlot slots[FLEXIBLE_ARRAY_MEMBER];
} EsWorkers;

extern EsWorkers *es_workers;
extern EsWorkerSlot *es_my_slot;	/* of this worker process, or NULL */

/* slots.c: all but the first two take the lock themselves */
extern EsWorkerSlot *es_slot_find(const char *kind, Oid dboid, int64 id);
extern void es_slot_release(EsWorkerSlot *slot);
extern long es_slot_start(const char *kind, Oid dboid, int64 id,
						  const char *main_function, const char **problem);
extern void es_slot_attach_launcher(void);
extern bool es_slot_attach(const char *kind);
extern void es_slot_found_extension(bool found);
extern bool es_slot_take_woken(void);
extern void es_slot_note_error(void);
extern void es_workers_tell_to_leave(Oid dboid, bool all);
extern void es_workers_extension_changed(Oid dboid);
extern void es_workers_wake_launcher(void);

/* supervise.c */
extern void es_worker_set_signals(void);
extern bool es_worker_was_terminated(void);

/* hold.c */
extern bool es_workers_held(Oid dboid);
extern void es_workers_hold(Oid dboid);
extern void es_workers_make_leave(Oid dboid, bool all);
extern void es_workers_unhold(Oid dboid);

/* database.c, publish.c, maintain.c: parts of the database's worker */
extern long es_publish_position(void);
extern uint64 es_publish_seen(void);
extern long es_maintain_partitions(EsDatabase *db);

/* entry points of background workers */
extern PGDLLEXPORT void es_launcher_main(Datum main_arg);
extern PGDLLEXPORT void es_database_worker_main(Datum main_arg);

#endif							/* EVENTSRC_WORKER_SLOTS_H */
