import { price } from './basket.js';

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** The newest orders of everyone, and the last report that the shop wrote about itself. */
export function Ledger({ recent, report, onOpen }) {
  return (
    <section className="ledger" aria-labelledby="ledger-title">
      <h2 id="ledger-title">The ledger</h2>
      <div className="columns">
        <div className="recent">
          {recent.length === 0 ? (
            <p className="empty">No orders yet.</p>
          ) : (
            <table>
              <caption>Newest orders</caption>
              <thead>
                <tr>
                  <th scope="col">Order</th>
                  <th scope="col">Placed</th>
                  <th scope="col">Goods</th>
                  <th scope="col" className="right">
                    Total
                  </th>
                  <th scope="col">Status</th>
                </tr>
              </thead>
              <tbody>
                {recent.map((order) => (
                  <tr key={order.id}>
                    <td>
                      <button className="link" onClick={() => onOpen(order)}>
                        № {order.number}
                      </button>
                    </td>
                    <td>{clock.format(Date.parse(order.placedAt))}</td>
                    <td>{order.items.reduce((sum, item) => sum + item.quantity, 0)}</td>
                    <td className="right">{price(order.totalCents)}</td>
                    <td>
                      <span className={`badge ${order.status}`}>{order.status}</span>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </div>
        <div className="report">
          <h3>Last report</h3>
          {report?.writtenAt ? (
            <dl>
              <dt>Paid orders</dt>
              <dd>{report.paid}</dd>
              <dt>Taken</dt>
              <dd>{price(report.takenCents)}</dd>
              <dt>Best seller</dt>
              <dd>{report.bestSeller || '–'}</dd>
              <dt>Written</dt>
              <dd>{clock.format(Date.parse(report.writtenAt))}</dd>
            </dl>
          ) : (
            <p className="empty">The first one comes within a few minutes.</p>
          )}
        </div>
      </div>
    </section>
  );
}
