/*
 * sequence.c
 *		Reserves positions durably, by the sequence eventsrc.position.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"

#include "store/position.h"

/* positions reserved at a time by one WAL record of the sequence */
#define POSITIONS_RESERVED		4096

/*
 * call_as_owner calls a sequence function of PostgreSQL with the rights of the
 * sequence's owner; the roles that append have none on it.
 */
static Datum
call_as_owner(PGFunction function, Oid sequence, Datum arg, int nargs, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;
	Oid			user;
	int			context;
	HeapTuple	tuple;
	Oid			owner;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(sequence));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_RUNNING),
				 errmsg("sequence eventsrc.position is missing"),
				 errhint("Run CREATE EXTENSION eventsrc.")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	InitFunctionCallInfoData(*fcinfo, NULL, nargs, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(sequence);
	fcinfo->args[0].isnull = false;
	if (nargs > 1)
	{
		fcinfo->args[1].value = arg;
		fcinfo->args[1].isnull = false;
	}

	/* an error restores the user at the abort of the (sub)transaction */
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	result = function(fcinfo);
	SetUserIdAndSecContext(user, context);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * es_sequence_position reads where the sequence stands: every position ever
 * given out is at or below it.
 */
uint64
es_sequence_position(Oid sequence)
{
	bool		isnull;
	Datum		last;

	last = call_as_owner(pg_sequence_last_value, sequence, (Datum) 0, 1, &isnull);
	return isnull ? 0 : (uint64) DatumGetInt64(last);
}

/*
 * es_raise_head moves the head to at least the given position.
 */
void
es_raise_head(EsDatabase *db, uint64 position)
{
	uint64		head = pg_atomic_read_u64(&db->head);

	while (head < position &&
		   !pg_atomic_compare_exchange_u64(&db->head, &head, position))
		;
}

/*
 * es_sequence_reserve moves the sequence, and so what a crash cannot take back,
 * to at least the given position.  Other backends may use what one has
 * reserved: their commits flush the WAL up to and beyond the sequence's record.
 */
void
es_sequence_reserve(EsDatabase *db, uint64 position)
{
	LOCKTAG		tag;
	bool		isnull;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, ES_LOCK_RESERVE);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	if (pg_atomic_read_u64(&db->reserved) < position)
	{
		uint64		standing = es_sequence_position(db->sequence);
		uint64		upto;

		/*
		 * somebody else moved it, such as a restore: up to there all were
		 * given out
		 */
		if (standing > pg_atomic_read_u64(&db->reserved))
		{
			es_raise_head(db, standing);
			position = Max(position, standing);
		}
		upto = position + POSITIONS_RESERVED;
		(void) call_as_owner(setval_oid, db->sequence, Int64GetDatum((int64) upto), 2, &isnull);
		pg_atomic_write_u64(&db->reserved, upto);
	}
	LockRelease(&tag, ExclusiveLock, false);
}
