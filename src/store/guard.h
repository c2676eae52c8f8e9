/*
 * guard.h
 *		Keeps commands from breaking stores: which objects belong to one
 *		(guarded.c), and what becomes of a command that harms them (guard.c).
 */
#ifndef EVENTSRC_GUARD_H
#define EVENTSRC_GUARD_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* a table of a store */
typedef struct EsGuarded
{
	Oid			table;			/* events, a partition, or a side table */
	Oid			events;			/* the store's */
	int			ncolumns;		/* the first columns, which are eventsrc's */
} EsGuarded;

/* what the hint of a refusal says */
typedef enum EsGuardHint
{
	ES_GUARD_HINT_DROP,
	ES_GUARD_HINT_ATTACH,
	ES_GUARD_HINT_EVENTS,
	ES_GUARD_HINT_ENABLE,
	ES_GUARD_HINT_NONE
} EsGuardHint;

extern bool es_setting_allow_unsafe_ddl;

extern void es_guard_install_hooks(void);

/* finds out whether a relation is a store's table; no errors, no locks */
extern bool es_guarded(Oid relid, EsGuarded *guarded);

/* eventsrc.append_trigger(), or InvalidOid */
extern Oid	es_guard_trigger(void);

/* is a function one whose triggers a store cannot do without? */
extern bool es_guard_needs_trigger(Oid function);

/* installs the hook that watches objects as they are changed */
extern void es_guarded_install_hook(void);

/*
 * es_guard_harm raises the error of a command that would harm a store, unless
 * it may; "what" completes the sentence "It would ...".
 */
extern void es_guard_harm(const EsGuarded *guarded, EsGuardHint hint, const char *what);

/* tells whether the present command is an ALTER TABLE that gives a column a type */
extern bool es_guard_command_sets_type(const char *column);

/* tells whether the present command drops tables, and the rest with them */
extern bool es_guard_command_drops_tables(void);

/* the store's tables beside events, with the number of columns that are ours */
typedef struct EsSideTable
{
	const char *name;
	int			ncolumns;
} EsSideTable;

extern const EsSideTable es_side_tables[];	/* ends with a NULL name */

/* what DROP EXTENSION eventsrc takes away (guard_extension.c) */
typedef struct EsLoss
{
	char	   *what;			/* in words; NULL: nothing */
	List	   *tables;			/* OIDs */
	List	   *schemas;		/* OIDs */
} EsLoss;

extern bool es_guard_drops_eventsrc(Node *statement);
extern void es_guard_before_extension_drop(DropStmt *statement, EsLoss *loss);
extern void es_guard_after_extension_drop(EsLoss *loss);

#endif							/* EVENTSRC_GUARD_H */
